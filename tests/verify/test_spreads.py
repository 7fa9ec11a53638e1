"""Spreads of means over seeds, where nothing spreads, and what a cell is compared with."""

from __future__ import annotations

from fractions import Fraction
from math import inf, sqrt

import pytest
from scipy import stats

from kit.manifest.expectation_types import Reference
from kit.results.types import Cell, SeedValue
from kit.verify.measurement import Measurement, measure
from kit.verify.seeds import (
    Group,
    Spread,
    baseline,
    combined,
    group,
    item_sd,
    mean_spread,
    reference_group,
    rounding,
    seed_group,
    welch,
)
from tests.verify.builders import expected_cell, reference, seeded, seeded_shares, share


def measured(cell: Cell) -> Measurement:
    return measure(cell, cell.unit, "results.json", None)


def still(size: int, floor: float | None) -> Group:
    """Equal values."""
    return group([Fraction(3)] * size, floor)


@pytest.mark.parametrize(
    ("here", "there", "error", "df"),
    [
        (still(3, 2.0), still(5, 1.0), 2 * sqrt(1 / 3 + 1 / 5), 6),
        (still(3, 1.0), still(5, 2.0), 2 * sqrt(1 / 3 + 1 / 5), 6),
        (still(3, None), still(5, 0.5), 0.5 * sqrt(1 / 3 + 1 / 5), 6),
        (still(1, 1.5), still(4, None), 1.5 * sqrt(1 + 1 / 4), 3),
        (still(2, 1.5), still(1, 1.0), 1.5 * sqrt(1 + 1 / 2), 1),
    ],
)
def test_without_spread_the_items_of_the_noisier_side_stand_in(
    here: Group, there: Group, error: float, df: float
) -> None:
    found = welch(here, there)
    assert found is not None
    assert (found.error, found.df) == (pytest.approx(error), df)
    assert "item sampling" in found.how


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (still(3, None), still(5, None)),
        (still(1, 1.0), still(1, 1.0)),
        (still(1, None), still(2, None)),
    ],
)
def test_no_spread_and_no_items_or_two_single_values_say_nothing(here: Group, there: Group) -> None:
    assert welch(here, there) is None


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("values", [(1, 4), (1, 2, 4)])
def test_one_value_against_several_is_a_prediction(values: tuple[int, ...], turned: bool) -> None:
    many, single = group([Fraction(v) for v in values], 9.0), still(1, 9.0)
    found = welch(single, many) if turned else welch(many, single)
    assert found is not None
    k = len(values)
    assert found.error == pytest.approx(stats.tstd(values) * sqrt(1 + 1 / k))
    assert (found.df, found.how) == (k - 1, f"prediction interval from {k} seeds")


def test_spread_on_one_side_only_has_the_degrees_of_freedom_of_that_side() -> None:
    found = welch(group([Fraction(v) for v in (1, 2, 4)]), still(8, 1.0))
    assert found is not None
    assert found.error == pytest.approx(stats.tstd([1, 2, 4]) / sqrt(3))
    assert found.df == pytest.approx(2)
    assert found.how == "Welch interval of 3 against 8 seeds"


@pytest.mark.parametrize(
    ("cell", "error", "df"),
    [
        (group([Fraction(1), Fraction(3)], 9.0), sqrt(2) / sqrt(2), 1),
        (group([Fraction(1), Fraction("1.5")]), sqrt(0.125) / sqrt(2), 1),
        (still(2, 3.0), 3 / sqrt(2), 1),
        (still(5, 3.0), 3 / sqrt(5), 4),
        (still(5, None), None, None),
        (still(1, 3.0), None, None),
    ],
)
def test_standard_error_of_one_mean(cell: Group, error: float | None, df: float | None) -> None:
    found = mean_spread(cell)
    assert (found is None) == (error is None)
    if found is not None:
        assert (found.error, found.df) == (pytest.approx(error), df)
        assert found.how.startswith(f"{cell.size} seeds")
        assert ("item sampling" in found.how) == (cell.sd == 0)


@pytest.mark.parametrize(
    ("parts", "variance", "df"),
    [
        ([(4.0, 2.0), (1.0, 5.0)], 5.0, 25 / (16 / 2 + 1 / 5)),
        ([(0.04, 2.0), (0.01, 5.0)], 0.05, 25 / (16 / 2 + 1 / 5)),
        ([(4.0, 2.0), (1.0, inf)], 5.0, 25 / 8),
        ([(4.0, 2.0), (0.0, 3.0)], 4.0, 2.0),
        ([(0.3, inf), (1.0, inf)], 1.3, inf),
        ([(0.0, 2.0), (0.0, inf)], 0.0, inf),
    ],
)
def test_satterthwaite_by_hand(
    parts: list[tuple[float, float]], variance: float, df: float
) -> None:
    assert combined(parts) == (pytest.approx(variance), pytest.approx(df))


def test_two_values_have_a_spread_and_one_has_none() -> None:
    two = group([Fraction(1), Fraction(4)], 7.0)
    assert (two.mean, two.size, two.floor) == (Fraction(5, 2), 2, 7.0)
    assert two.sd == pytest.approx(stats.tstd([1, 4]))
    assert group([Fraction(4)], 7.0) == Group(Fraction(4), 0.0, 1, 7.0)


def test_intervals_and_tails_are_those_of_t() -> None:
    spread = Spread(2.0, 4.0, "")
    low, high = stats.t.interval(0.95, 4, loc=3, scale=2)
    assert spread.interval(3.0, 0.95) == pytest.approx((low, high))
    assert spread.interval(3.0, 0.95, 0.5) == pytest.approx((low - 0.5, high + 0.5))
    assert spread.tails(3.0) == pytest.approx((stats.t.sf(1.5, 4), stats.t.cdf(1.5, 4)))


def agresti(p: float, n: int) -> float:
    """Of one proportion, two successes and two failures added."""
    q = (n * p + 2) / (n + 4)
    return sqrt(q * (1 - q) / n)


@pytest.mark.parametrize(
    ("cell", "sd"),
    [
        (share("t/a", 10, 40), 100 * agresti(0.25, 40)),
        (share("t/a", 10, 40, "fraction"), agresti(0.25, 40)),
        (seeded_shares("t/a", [10, 20], 40), 100 * agresti(0.375, 40)),
        (seeded("t/a", [10.0, 20.0]), None),
        (Cell(id="t/a", unit="percent", value=10.0), None),
        (Cell(id="t/a", unit="percent", value=10.0, n=40), None),
    ],
)
def test_item_sampling_of_one_seed(cell: Cell, sd: float | None) -> None:
    found = item_sd(measured(cell))
    assert found is None if sd is None else found == pytest.approx(sd)
    assert seed_group(measured(cell)).floor == found


def test_the_seed_with_the_fewest_items_is_the_noisiest() -> None:
    seeds = [SeedValue(seed=str(n), value=25.0, k=n // 4, n=n) for n in (80, 40, 400)]
    cell = measured(Cell(id="t/a", unit="percent", value=25.0, seeds=seeds))
    assert item_sd(cell) == pytest.approx(100 * agresti(0.25, 40))


def test_a_cell_measured_once_is_a_group_of_one() -> None:
    assert seed_group(measured(share("t/a", 10, 40))).size == 1
    three = seed_group(measured(seeded("t/a", [1.0, 2.0, 6.0])))
    assert (three.size, three.mean) == (3, 3)
    assert three.sd == pytest.approx(stats.tstd([1, 2, 6]))


def printed_reference(mean: str) -> Reference:
    return Reference(mean=mean, sd="0.5", n_seeds=4, values=[], record="made")


def test_a_printed_number_stands_for_what_rounds_to_it_and_a_stored_mean_for_itself() -> None:
    """Half a unit of the last digit; with its values beside it only as far as storage goes."""
    by_hand = baseline(expected_cell(value=None, reference=printed_reference("22.5")))
    assert by_hand is not None
    assert (by_hand.value, by_hand.half) == (Fraction("22.5"), Fraction(1, 20))
    long = baseline(expected_cell(value=None, reference=printed_reference("22.50000000000")))
    assert long is not None
    assert float(long.half) == pytest.approx(rounding(22.5))
    stored = baseline(expected_cell(value=None, reference=reference(["22", "23"])))
    assert stored is not None
    assert (stored.value, float(stored.half)) == (Fraction("22.5"), pytest.approx(rounding(22.5)))
    both = baseline(expected_cell(value="4.8", reference=reference(["22", "23"])))
    assert both is not None
    assert (both.value, both.half) == (Fraction("4.8"), Fraction(1, 20))
    assert baseline(expected_cell(value=None)) is None
    count = baseline(expected_cell(value="208", unit="count"))
    assert count is not None
    assert count.half == 0


def test_reference_seeds_are_a_group_with_or_without_their_values() -> None:
    printed = reference_group(printed_reference("22.5"), 3.0)
    assert printed == Group(Fraction("22.5"), 0.5, 4, 3.0)
    known = reference_group(reference(["22", "23", "27"]), None)
    assert (known.mean, known.size, known.floor) == (24, 3, None)
    assert known.sd == pytest.approx(stats.tstd([22, 23, 27]))
