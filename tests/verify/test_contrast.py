"""One cell alone, and cells of different kinds, against a number."""

from __future__ import annotations

from fractions import Fraction
from math import sqrt

import pytest
from scipy import stats

from kit.manifest.expectation_types import Derived
from kit.results.types import Cell
from kit.verify.contrast import contrast
from kit.verify.derived import undefined, with_ratios
from kit.verify.measurement import Measurement, measure
from kit.verify.proportions import shrunk_sd
from tests.verify.builders import (
    expectation,
    expected_cell,
    labels,
    memory,
    seeded,
    seeded_shares,
    share,
)


def measured(cell: Cell) -> Measurement:
    return measure(cell, cell.unit, "results.json", None)


@pytest.mark.parametrize(
    ("at", "above", "below"),
    [(120, 1.0, 0.0), (101, 1.0, 0.0), (-1, 0.0, 1.0), (100, 1.0, None), (0, None, 1.0)],
)
def test_a_share_against_what_no_share_can_be(
    at: int, above: float | None, below: float | None
) -> None:
    """It is surely on one side; at the very ends the exact test still speaks."""
    found = contrast(measured(share("t/a", 10, 40)), None, Fraction(at))
    assert found.estimate == 25 - at
    assert (found.method == "outside 0 to 1") == (not 0 <= at <= 100)
    if at in (0, 100):
        theirs = stats.binomtest(10, 40, at / 100)
        assert theirs.pvalue < 1e-9
        assert min(found.above or 0.0, found.below or 0.0) < 1e-9
    else:
        # p of "larger" is 0 where it is surely larger
        assert (found.above, found.below) == (above, below)


@pytest.mark.parametrize("unit", ["percent", "fraction"])
@pytest.mark.parametrize("weight", [1, 2])
def test_seeds_against_a_share_of_items_are_welch_with_a_known_variance(
    unit: str, weight: int
) -> None:
    whole = 100.0 if unit == "percent" else 1.0
    values = [whole * v for v in (0.42, 0.47, 0.44, 0.51)]
    ours, theirs = seeded("t/a", values, unit), share("t/b", 30, 120, unit)
    found = contrast(measured(ours), measured(theirs), Fraction(0), Fraction(weight))
    own = stats.tstd(values) ** 2 / 4
    other = (weight * whole * shrunk_sd(0.25, 120)) ** 2
    df = (own + other) ** 2 / (own**2 / 3)
    gap = sum(values) / 4 - weight * 0.25 * whole
    assert float(found.estimate) == pytest.approx(gap)
    assert found.above == pytest.approx(stats.t.sf(gap / sqrt(own + other), df), rel=1e-6)
    assert found.above is not None
    assert found.below == pytest.approx(1 - found.above)


def test_seeds_against_a_plain_number_have_the_seeds_spread_alone() -> None:
    values = [1.0, 1.25, 1.5]
    plain = measured(Cell(id="t/b", unit="loss", value=1.0))
    found = contrast(measured(seeded("t/a", values, "loss")), plain, Fraction(0))
    assert found.p == pytest.approx(stats.ttest_1samp(values, 1.0).pvalue)
    assert contrast(plain, plain, Fraction(0)).p is None


def test_seeds_of_two_runs_without_spread_are_as_sure_as_their_items() -> None:
    """All equal: items stand in; a p there is, and it falls with the number of items."""
    ps = []
    for n in (40, 4000):
        ours, theirs = seeded_shares("t/a", [n // 2] * 3, n), seeded_shares("t/b", [n // 4] * 3, n)
        found = contrast(measured(ours), measured(theirs), Fraction(0))
        assert found.p is not None
        ps.append(found.p)
    assert ps[1] < ps[0] < 0.1


# Ratios.


def ratio_of(status: str, value: str | None = "50") -> Measurement:
    """t/r = t/a / t/b; t/a measured with labels, t/b printed only."""
    line = labels("a", "1100110010")
    rule = Derived(formula="ratio", cells=["t/a", "t/b"])
    cells = [
        expected_cell("t/a", "50", n=10),
        expected_cell("t/b", value, status=status, tolerance=None),
        expected_cell("t/r", "1", unit="ratio", derived=rule),
    ]
    source = memory(line)
    measured_ = {
        "t/a": measure(share("t/a", line.k, 10, labels="a"), "percent", "w", source),
        "t/r": measure(Cell(id="t/r", unit="ratio", value=1.0), "ratio", "w", source),
    }
    return with_ratios(expectation(cells), measured_)["t/r"]


@pytest.mark.parametrize(
    ("status", "value", "known"),
    [("quoted", "50", True), ("reported", "50", False), ("quoted", None, False)],
)
def test_a_part_that_is_only_quoted_has_its_printed_value_and_no_noise(
    status: str, value: str | None, known: bool
) -> None:
    made = ratio_of(status, value)
    assert (made.ratio is not None) == known
    if made.ratio is not None:
        ours, quoted = made.ratio.over
        assert ours.n == 10
        assert (quoted.p, quoted.n) == (0.5, float("inf"))
        assert made.ratio.together is not None
        (own, other), quoted_ones = made.ratio.together
        assert own > 0
        assert (other, *quoted_ones) == (0.0, 0.0, 0.0)


def test_what_is_not_derived_is_never_undefined() -> None:
    cells = [expected_cell("t/a", "0"), expected_cell("t/b", "0")]
    rule = Derived(formula="ratio", cells=["t/a", "t/b"])
    cells.append(expected_cell("t/r", "1", unit="ratio", derived=rule))
    zero = {id: measured(share(id, 0, 10)) for id in ("t/a", "t/b")}
    made = expectation(cells)
    assert undefined(cells[0], made, zero, "") is False
    assert undefined(cells[2], made, zero, "") is True
    assert undefined(cells[2], made, zero | {"t/b": measured(share("t/b", 1, 10))}, "") is False
