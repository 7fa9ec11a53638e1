"""Numbers have the digits that their uncertainty supports."""

from __future__ import annotations

import pytest
from msgspec import structs

from kit.manifest.expectation_types import ExpectedCell, Reference
from kit.report.cells import row, spread
from kit.report.declared import Numbers, _square
from kit.report.details import deviations
from kit.results.types import Cell, SeedValue
from kit.verify.finding import judged
from kit.verify.measurement import measure
from kit.verify.verdict import Interval
from tests.report.builders import cell, claim, verdict


@pytest.mark.parametrize(
    ("mean", "sd", "unit", "shown"),
    [
        ("93.173076923077", "5.1582", "percent", "93.2 \u00b1 5.2"),
        ("0.954733", "0.0312", "ratio", "0.955 \u00b1 0.031"),
        ("320", "0", "count", "320"),
        ("-0.01122", "0.0471", "ratio", "\u22120.011 \u00b1 0.047"),
    ],
)
def test_a_reference_has_two_digits_of_its_spread(
    mean: str, sd: str, unit: str, shown: str
) -> None:
    assert spread(mean, sd, unit) == shown


def test_a_measured_loss_is_rounded_by_its_interval() -> None:
    made = cell(
        "t/loss", unit="loss", published=None, value=1.234567,
        value_interval=Interval(low=1.13, high=1.34, level=0.95),
    )  # fmt: skip
    assert row(made, "c1").value == "1.23"


def test_a_line_and_its_details_have_no_digit_that_nothing_supports() -> None:
    """As of ten seeds of a run: 0.432692307, -2.406 to +1.541, twice the same p."""
    wide = Interval(low=-2.40612, high=1.54073, level=0.95)
    made = cell(
        "t/accuracy", unit="percent", published="98.70", status="reference", value=98.269230769,
        value_interval=Interval(low=96.3012, high=100.0, level=0.95), difference=-0.432692307,
        interval=wide, interval_equivalence=Interval(low=-2.0271, high=1.1617, level=0.9),
        margin=5.0, margin_source="convention", p=0.44502, q=0.98,
        detail="difference -0.4 points; 95 % interval -2.4 to +1.5, margin 5",
    )  # fmt: skip
    line = row(made, "c1")
    assert line.value == "98.3"
    assert line.interval == "[96.3, 100.0]"
    assert line.summary == made.detail
    facts = dict(line.facts)
    assert facts["90 % interval of the difference"] == "[\u22122.0, +1.2]"
    assert facts["p of no difference"] == "0.980 (Benjamini\u2013Hochberg)"
    again = structs.replace(made, detail="difference 0.5 points, exact McNemar p = 0.445")
    assert "p of no difference" not in dict(row(again, "c1").facts)


def test_the_sentence_of_a_cell_is_rounded_where_it_is_made() -> None:
    found = judged(
        identical=False, difference=-0.00432692, wide=(-0.0240612, 0.0154073),
        narrow=(-0.020271, 0.011617), margin=0.05, p=0.44, unit="percent", scale=100.0,
        how="interval over 5 replicates",
    )  # fmt: skip
    assert found.detail == (
        "difference -0.4 points; 95 % interval over 5 replicates -2.4 to +1.5, margin 5"
    )
    assert found.difference == pytest.approx(-0.432692)


def test_a_failing_claim_stands_under_deviations_in_words_with_its_p_once() -> None:
    failing = claim(
        "falls", outcome="fails", detail="t/asr 12.34567 %; at most 5 % asked (p = 0.99)",
        tested="ASR is 12.3 %; at most 5 % asked", estimate="t/asr 12.34567 %",
        method="one-sided t, 5 seeds", p=0.98765, p_holm=None,
    )  # fmt: skip
    (shown,), _ = deviations(verdict(claims=[failing], cells=[]))
    assert (shown.detail, shown.evidence) == (
        "ASR is 12.3 %; at most 5 % asked", "one-sided t, 5 seeds, p = 0.988"
    )  # fmt: skip


def test_a_square_of_a_grid_has_the_digits_of_its_interval() -> None:
    values = [91.8269, 100.0, 86.0577, 90.8654, 97.1154]
    seeds = [SeedValue(seed=str(i), value=v) for i, v in enumerate(values)]
    measured = measure(
        Cell(id="t/a/x", unit="percent", value=93.17307692, seeds=seeds), "percent", "r", None, []
    )
    expected = ExpectedCell(
        id="t/a/x", unit="percent", status="reference",
        reference=Reference(mean="94.230769", sd="5.1", values=[str(v) for v in values],
                            n_seeds=5, record="r"),
        place="none",
    )  # fmt: skip
    numbers = Numbers({"t/a/x": measured}, {"t/a/x": expected}, {})
    square = _square(0, 0, "t/a/x", numbers, (0.0, 100.0))
    assert (square.text, square.published) == ("93.2", "(94.2)")
