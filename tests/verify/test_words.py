"""The verdict in words: what was tested, its scale, and fifteen lines of eighty columns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs

from kit.results.record import Blind
from kit.verify.numbers import places, show, show_p, some
from kit.verify.render import HEIGHT, MANY, WIDTH, ending, lines, shown
from kit.verify.verdict import ClaimReport, Interval, Verdict
from kit.verify.words import Documents, caveats, decides, in_unit, published_line
from tests.verify.builders import claim, expected_cell, run, seeded, share

LOW, HIGH = [8.0, 9.5, 7.0, 12.0, 6.5], [94.0, 95.5, 90.0, 97.0, 92.5]


def asr(documents: Documents | None = None, **fields: Any) -> Verdict:
    cells = [expected_cell("t/after", None, tolerance=None, status="unreported", title="")]
    cells.append(expected_cell("t/before", None, tolerance=None, status="unreported"))
    order = claim(
        "order", sentence="200 steps reduce this to 1.9%", cells=["t/after", "t/before"], **fields
    )
    measured = [seeded("t/after", LOW), seeded("t/before", HIGH)]
    return run(cells, measured, [order], documents=documents, replicate="pair")


def test_the_tested_sentence_has_the_measured_numbers_and_the_published_one_its_own_status() -> (
    None
):
    said = asr(Documents(scale="8B"), tested="200 steps bring ASR from {1} to {0}").claims[0]
    assert said.tested == "200 steps bring ASR from 93.8 % to 8.6 %; 5 pairs"
    assert said.published == "8B: not run here"
    assert said.outcome == "holds"


def test_a_number_that_the_claim_has_not_stays_as_it_is_written() -> None:
    said = asr(tested="200 steps bring ASR from {1} to {2} and {99}").claims[0].tested
    assert said == "200 steps bring ASR from 93.8 % to {2} and {99}; 5 pairs"


def test_explained_claims_stand_in_words_with_how_they_were_decided() -> None:
    verdict = asr(tested="200 steps bring ASR from {1} to {0}")
    (line,) = (line for line in lines(verdict) if line.startswith("primary "))
    assert line.startswith(
        "primary c1 holds: 200 steps bring ASR from 93.8 % to 8.6 %; 5 pairs; 5 paired seeds"
    )
    assert line.count("(p ") == 1
    assert "t/after" not in line


def test_without_words_the_numbers_follow_the_claim() -> None:
    assert asr().claims[0].tested == "c1: 8.6 % < 93.8 %; 5 pairs"
    assert asr().claims[0].published == ""


def test_the_headline_says_scale_count_and_what_was_not_run() -> None:
    verdict = asr(Documents(scale="8B"))
    assert verdict.headline == ("REPRODUCED (1 of 1 primary claims); published 8B numbers: not run")
    assert verdict.published == "published 8B numbers: not run"
    here = asr(Documents(scale="8B", here=True))
    assert here.headline.endswith("published numbers: 0 of 0 compared")
    assert asr().headline == "REPRODUCED (1 of 1 primary claims)"


def test_of_the_printed_numbers_those_count_that_were_compared() -> None:
    cells = [expected_cell(f"t/{name}", "9.0") for name in ("run", "again", "left")]
    measured = [seeded("t/run", LOW), seeded("t/again", LOW)]
    verdict = run(cells, measured, [], documents=Documents(scale="8B", here=True))
    assert published_line(verdict, Documents(here=True)) == ("published numbers: 2 of 3 compared")


@pytest.mark.parametrize(
    ("half", "unit", "digits"),
    [(5.16, "percent", 1), (0.031, "ratio", 3), (0.0, "ratio", None), (120.0, "count", 0),
     (0.5, "loss", 2), (float("inf"), "percent", None)],
)  # fmt: skip
def test_a_number_has_the_digits_that_its_uncertainty_supports(
    half: float, unit: str, digits: int | None
) -> None:
    assert places(half, unit) == digits


def test_numbers_are_not_printed_with_twelve_digits() -> None:
    interval = Interval(low=88.01, high=98.33, level=0.95)
    assert in_unit(93.173076923077, interval, "percent") == "93.2 %"
    assert in_unit(320.0, None, "count") == "320"


def test_a_caveat_repeats_what_came_out() -> None:
    report = asr(tested="ASR falls to {0}").claims[0]
    assert caveats(["In this arm: {c1}."], [report]) == [
        "In this arm: ASR falls to 8.6 %; 5 pairs: holds."
    ]


def many(count: int, outcome: str) -> list[ClaimReport]:
    return [
        ClaimReport(
            id=f"id-{outcome}-{i}", kind="order", sentence="s", place="p", primary=True, cells=[],
            outcome=outcome, detail="d", tested=f"{outcome} number {i} " + "word " * 16,
            needed="about 40 pairs would decide, if these numbers stay",
        )
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("held", [0, 1, 9, 10, 15])
@pytest.mark.parametrize("still", [0, 1, 5, 15])
def test_the_end_has_fifteen_lines_of_eighty_columns(held: int, still: int) -> None:
    claims = [*many(held, "holds"), *many(still, "undetermined"), *many(1, "fails")]
    verdict = Verdict(
        experiment="e", profile="mini", version="1-A", verdict="NOT REPRODUCED", exit_code=1,
        cells=[], claims=claims, headline="NOT REPRODUCED at miniature scale " + "word " * 20,
        caveats=["a", "b", "c"], blind=Blind(from_store=1_000),
        reasons=["not whole: " + "absent " * 30, "fails: id-fails-0"],
    )  # fmt: skip
    said = [line for line, _ in ending(verdict, "runs/e/report.html")]
    assert len(said) <= HEIGHT
    assert max(map(len, said)) <= WIDTH
    assert said[-1] == "runs/e/report.html"
    assert "  blind: results hashed before the expectation was read; 1,000 steps cached" in said
    assert any(line.startswith("  fails: fails number 0") for line in said)
    assert not any("id-" in line for line in said)
    assert held == 0 or any("primary claim" in line or "holds:" in line for line in said)


def test_a_blind_run_says_so_and_another_does_not() -> None:
    assert not any("blind" in line for line, _ in ending(asr()))
    blind = structs.replace(asr(), blind=Blind(from_store=0))
    line = "  blind: results hashed before the expectation was read"
    assert [said for said, _ in ending(blind)].count(line) == 1
    assert line.strip().replace(":", "", 1) in list(lines(blind))


def test_what_is_a_seed_is_one_explain_away() -> None:
    said = "\n".join(lines(asr()))
    assert "term seed, pair, replicate: one observation" in said
    assert "one-sided t" in said
    assert "one-sided t" not in "\n".join(line for line, _ in ending(asr()))


def test_a_difference_short_of_its_margin_is_not_called_one_in_the_other_direction() -> None:
    """24 points lower where 30 were asked: lower all the same."""
    report = ClaimReport(
        id="c", kind="order", sentence="s", place="p", primary=True, cells=["a", "b"],
        outcome="undetermined", detail="", p=0.6,
    )  # fmt: skip
    cells: Any = {id: SimpleNamespace(seeds=[1, 2, 3]) for id in ("a", "b")}
    assert decides(report, cells, "seeds") == "as measured, it would not hold"


@pytest.mark.parametrize(
    ("number", "text", "signed"),
    [
        (0, "0", "0"), (0.5, "0.5", "+0.5"), (-4.8076923, "-4.808", "-4.808"),
        (12345.6, "12,346", "+12,346"), (-99999.5, "-100,000", "-100,000"),
        (999_900_000, "999,900,000", "+999,900,000"), (1e9, "1e+09", "+1e+09"),
        (-1e9, "-1e+09", "-1e+09"), (0.00012, "0.00012", "+0.00012"),
        (0.000012, "0.000012", "+0.000012"), (1e-6, "0.000001", "+0.000001"),
        (-1e-6, "-0.000001", "-0.000001"), (9.9e-7, "9.9e-07", "+9.9e-07"),
    ],
)  # fmt: skip
def test_numbers_of_everyday_sizes_have_no_exponent(number: float, text: str, signed: str) -> None:
    assert show(number) == text
    assert show(number, signed=True) == signed


@pytest.mark.parametrize(
    ("p", "text"), [(0.01234, "p = 0.0123"), (0.0001, "p = 0.0001"), (0.00009, "p < 0.0001")]
)
def test_small_p_values_are_bounded(p: float, text: str) -> None:
    assert show_p(p) == text


@pytest.mark.parametrize(
    ("many", "text"),
    [(1, "a"), (3, "a, b, c"), (4, "a, b, c and 1 more"), (6, "a, b, c and 3 more")],
)
def test_some_names_and_how_many_more(many: int, text: str) -> None:
    assert some("abcdef"[:many]) == text


def test_of_a_large_table_only_what_needs_a_reader_is_printed() -> None:
    cells = [expected_cell(f"t/{i}", "50", n=208) for i in range(MANY + 1)]
    made = [share(f"t/{i}", 20 if i == 3 else 104, 208) for i in range(MANY)]
    large = run(cells, made)
    assert [cell.id for cell in shown(large, every=False)] == ["t/3", f"t/{MANY}"]
    assert shown(large, every=True) == large.cells
    small = run(cells[:-1], made)
    assert len(small.cells) == MANY
    assert shown(small, every=False) == small.cells
