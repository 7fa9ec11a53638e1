"""Tables within their budget, and cells as they are printed."""

from __future__ import annotations

import pytest

from kit.report import tables
from kit.report.cells import row
from kit.report.claims import banner, claim_rows
from kit.report.html import _environment
from kit.results.types import Cell, SeedValue
from tests.report.builders import cell, claim, verdict
from tests.report.extremes import large_verdict


def test_order_and_groups_are_those_of_the_verdict() -> None:
    made = tables.tables(verdict(), {}, {})
    assert [table.name for table in made] == ["asr", "refusal", "loss"]
    assert [line.name for line in made[0].rows][:2] == ["baseline", "step-25"]
    assert made[1].counts == [("deviates", 2), ("reproduced", 1)]
    assert made[1].omnibus.startswith("2 of 3 cells differ")


def test_everything_fits_where_there_is_room() -> None:
    for table in tables.tables(verdict(), {}, {}):
        assert (table.left_out, table.folded) == (0, 0)
        assert all(line.detailed for line in table.rows)


def test_details_go_first_to_the_gravest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "DETAIL_BYTES", 3000)
    made = tables.tables(verdict(), {}, {})
    lines = [line for table in made for line in table.rows]
    assert {line.verdict for line in lines if line.detailed} >= {"deviates", "inconclusive"}
    assert not any(line.detailed for line in lines if line.verdict == "match")
    assert sum(table.folded for table in made) == sum(not line.detailed for line in lines)


def test_lines_left_out_are_the_mildest_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_BYTES", 700)
    made = tables.tables(verdict(), {}, {})
    kept = [line.verdict for table in made for line in table.rows]
    assert "match" not in kept
    assert "deviates" in kept
    assert sum(table.left_out for table in made) == 12 - len(kept)
    assert made[0].size == "6 cells"


def test_large_grid_keeps_every_line() -> None:
    made = tables.tables(large_verdict(10_000), {}, {})
    assert sum(len(table.rows) for table in made) == 10_000
    assert sum(table.left_out for table in made) == 0
    assert sum(table.folded for table in made) > 5_000


def test_a_shift_stays_visible() -> None:
    assert row(cell("a/b", shifted=True), "c0").word == "reproduced (shifted)"


def test_measured_precision_follows_the_published_string() -> None:
    line = row(
        cell(
            "a/b", published="0.050", value=0.0496, unit="loss", difference=-0.0004, interval=None
        ),
        "c0",
    )
    assert line.value == "0.050"


def test_statuses_without_a_number_are_named() -> None:
    line = row(cell("a/b", published=None, status="diverged", verdict="not-compared"), "c0")
    assert line.published == "diverged"
    reference = row(cell("a/b", published="2.0", status="reference"), "c0")
    assert (reference.published, reference.reference) == ("\u2014", "2.0")


def test_seeds_are_listed() -> None:
    seeds = [SeedValue(seed="0", value=2.0), SeedValue(seed="1", value=2.8)]
    measured = Cell(id="a/b", unit="percent", step="s[pair=1]", seeds=seeds)
    facts = dict(row(cell("a/b", seeds=2), "c0", None, measured).facts)
    assert facts["seeds"] == "2 seeds: 2.0, 2.8"
    assert facts["measured by"] == "s[pair=1]"


def test_claims_primary_first_with_links_to_printed_lines_only() -> None:
    further = claim("z", primary=False, cells=["gone", "asr/x"])
    rows = claim_rows(verdict(claims=[further, claim("a")]), {"asr/x": "c7"})
    assert [row.said.id for row in rows] == ["a", "z"]
    assert rows[1].cells == [("gone", ""), ("asr/x", "c7")]
    assert rows[0].evidence.endswith("p = 0.001 (Holm)")
    assert rows[0].evidence.count("p ") == 1


@pytest.mark.parametrize(
    ("scope", "variant", "said"),
    [
        ("miniature models", "corrected", "nothing about anything but miniature models"),
        ("", "as-reported", "flaws included"),
    ],
)
def test_banner_says_what_is_not_covered(scope: str, variant: str, said: str) -> None:
    made = banner(verdict(scope=scope), variant=variant, rehearsal=False, seeds=3)
    assert said in made.omits
    assert "over 3 seeds" in made.covers


def test_banner_says_what_was_not_recorded() -> None:
    bare = banner(verdict(kit_version=""), variant="", rehearsal=False, seeds=0)
    assert dict(bare.facts)["variant"] == dict(bare.facts)["kit"] == "not recorded"
    assert dict(bare.facts)["seeds"] == "single run"
    full = banner(verdict(kit_version="0.1.0"), variant="corrected", rehearsal=False, seeds=3)
    assert [dict(full.facts)[name] for name in ("variant", "kit", "seeds")] == [
        "corrected",
        "0.1.0",
        "3",
    ]


def test_banner_does_not_count_the_claims_twice() -> None:
    made = verdict(reasons=["2 of 3 primary claims hold", "utility-kept stays undetermined"])
    assert sum(claim.outcome == "holds" for claim in made.claims if claim.primary) == 2
    shown = banner(made, variant="", rehearsal=False, seeds=3)
    assert shown.reasons == ["utility-kept stays undetermined"]


def test_banner_of_a_complete_run_claims_no_gap() -> None:
    made = banner(
        verdict(profile="paper", cells=[cell("a/b")], not_covered=[]),
        variant="corrected", rehearsal=False, seeds=0,
    )  # fmt: skip
    assert made.omits == "Nothing that the expectation lists was left out."


def test_the_tested_sentence_stands_before_the_published_one() -> None:
    said = claim(
        "a", detail="1 < 2; exact test (p = 0.01)", estimate="1 < 2", method="exact test",
        tested="ASR falls from 94.2 to 8.9", published="8B: printed 1.9; not run here",
        p=0.01, p_holm=None,
    )  # fmt: skip
    (line,) = claim_rows(verdict(claims=[said]), {})
    assert (line.tested, line.said) == (said.tested, said)
    assert line.evidence == "exact test, p = 0.010"
    page = _environment().get_template("claims.html").render(claims=[line])
    assert page.index(said.tested) < page.index(said.sentence) < page.index(said.published)
    assert page.count("0.010") == 1


def test_units_stand_on_the_lines_of_a_mixed_table() -> None:
    mixed = verdict(cells=[cell("a/x"), cell("a/y", unit="loss")])
    (table,) = tables.tables(mixed, {}, {})
    assert table.unit == "several units"
    assert [line.unit for line in table.rows] == ["percent", "loss"]
    assert {line.unit for line in tables.tables(verdict(), {}, {})[0].rows} == {""}
