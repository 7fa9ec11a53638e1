"""A cell as the report prints it."""

from __future__ import annotations

import pytest

from kit.report.cells import row, span, spread, word
from kit.results.types import Cell, SeedValue
from kit.verify.verdict import Interval
from tests.report.builders import cell
from tests.verify.builders import expected_cell, reference


def test_a_full_cell() -> None:
    values = [SeedValue(seed=str(i), value=2.0 + i / 10) for i in range(22)]
    measured = Cell(id="asr/a", unit="percent", value=2.4, seeds=values, step="evaluate")
    known = expected_cell("asr/a", "1.9", note="a note", reference=reference(["1.0", "3.0"]))
    made = cell("asr/a", title="A", seeds=22, flip_rate=0.0144, needed="700 items", shifted=True)
    line = row(made, "c0", known, measured)
    assert (line.name, line.title, line.anchor, line.word) == (
        "a",
        "A",
        "c0",
        "reproduced (shifted)",
    )
    assert (line.published, line.value, line.interval) == ("1.9", "2.4", "[1.0, 5.5]")
    assert line.reference == "2.0 \u00b1 1.4"
    assert line.summary == made.detail
    facts = dict(line.facts)
    assert facts["margin"] == (
        "5 points, chosen by convention: five points separate a working defence from a weak one"
    )
    assert facts["items"] == "5 of 208"
    assert facts["seeds"] == "22 seeds: " + ", ".join(f"{2 + i / 10:.1f}" for i in range(20))
    assert facts["90 % interval of the difference"] == "[\u22122.1, +3.1]"
    assert facts["p of no difference"] == "0.930 (Benjamini\u2013Hochberg)"
    assert facts["labels changed"] == "1.4 % of the items"
    assert (facts["would decide it"], facts["measured by"]) == ("700 items", "evaluate")
    assert (facts["note"], facts["compared by"]) == ("a note", "binomial")
    assert "status" not in facts


def test_a_bare_cell_says_nothing_that_it_does_not_know() -> None:
    bare = cell("t", published=None, value=None, status="quoted", k=None, n=None, seeds=None,
                kind=None, difference=None, interval=None, interval_equivalence=None,
                value_interval=None, margin=None, p=None, q=None, verdict="not-compared",
                detail="", place="")  # fmt: skip
    line = row(bare, "c1")
    assert [line.published, line.reference, line.value, line.interval] == ["\u2014"] * 4
    assert (line.name, line.word, line.summary) == ("t", "not compared", "quoted")
    assert line.facts == [("cell", "t"), ("status", "quoted")]
    assert dict(row(cell("t/a", k=None, q=None), "c").facts)["items"] == "208"
    assert dict(row(cell("t/a", q=None), "c").facts)["p of no difference"] == "0.740"
    assert dict(row(cell("t/a"), "c").facts)["seeds"] == "10 seeds"
    assert row(cell("t/a", verdict="not-run"), "c").value == "\u2014"


@pytest.mark.parametrize(
    ("status", "published", "known", "shown"),
    [
        ("reported", "-1.9", False, ("\u22121.9", "\u2014")),
        ("reported", "-1.9", True, ("\u22121.9", "2.0 \u00b1 1.4")),
        ("reference", "-1.9", False, ("\u2014", "\u22121.9")),
        ("reference", "1.9", True, ("\u2014", "2.0 \u00b1 1.4")),
        ("reference", None, False, ("\u2014", "\u2014")),
        ("diverged", None, True, ("diverged", "2.0 \u00b1 1.4")),
        ("running", None, False, ("running", "\u2014")),
        ("cancelled", None, False, ("cancelled", "\u2014")),
        ("unreported", None, False, ("unreported", "\u2014")),
        ("quoted", None, False, ("\u2014", "\u2014")),
    ],
)
def test_what_is_printed_beside_a_value(
    status: str, published: str | None, known: bool, shown: tuple[str, str]
) -> None:
    given = reference(["1.0", "3.0"]) if known else None
    made = cell("t/a", status=status, published=published)
    line = row(made, "c", expected_cell("t/a", None, reference=given))
    assert (line.published, line.reference) == shown


def test_signs_and_words() -> None:
    assert span(Interval(low=-1, high=0, level=0.95), 1, sign=True) == "[\u22121.0, 0.0]"
    assert word(cell("t/a", verdict="not-run")) == "not run"


def test_a_spread_is_no_more_exact_than_what_was_given() -> None:
    assert spread("93.25", "5.21", "percent") == "93.2 \u00b1 5.2"
    assert spread("93", "5", "percent") == "93 \u00b1 5"
    assert spread("0.5", "0", "loss") == "0.5000"
