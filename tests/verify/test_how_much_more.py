"""How much more evidence an open cell asks for: with as much it is decided, with less it is not."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from math import sqrt
from statistics import fmean, stdev
from typing import Any

import pytest
from scipy import stats

from kit.results.types import Cell
from kit.verify.kinds.plain import STANDOFF, bound
from kit.verify.measurement import Measurement, Seed, measure
from kit.verify.planning import needed_seeds, smallest
from kit.verify.seeds import Spread
from tests.verify.builders import seeded, share


def measured(cell: Cell) -> Measurement:
    return measure(cell, cell.unit, "a test", None)


def asked(needed: str | None, what: str) -> int:
    found = re.fullmatch(rf"about ([\d,]+) {what}", needed or "")
    assert found is not None, needed
    return int(found[1].replace(",", ""))


@pytest.mark.parametrize("unit", ["percent", "fraction"])
@pytest.mark.parametrize("side", ["at_most", "at_least"])
@pytest.mark.parametrize(("k", "n", "edge"), [(9, 208, 0.05), (12, 208, 0.05), (50, 100, 0.52)])
def test_items_that_decide_a_bound(k: int, n: int, edge: float, side: str, unit: str) -> None:
    """On whichever side of it the value stands."""
    whole = 100 if unit == "percent" else 1
    value = Fraction(str(edge)) * whole
    items = asked(bound(measured(share("t/a", k, n, unit)), value, side).needed, "items")

    def decided(count: float) -> bool:
        hits = k * count / n
        low = stats.beta.ppf(0.05, hits, count - hits + 1)
        high = stats.beta.ppf(0.95, hits + 1, count - hits)
        return bool(high <= edge or low >= edge)

    assert items > n
    assert decided(items)
    assert not decided(0.99 * items)


@pytest.mark.parametrize("edge", ["2.1", "1.3", "1.66", "1.75"])
def test_seeds_that_decide_a_bound(edge: str) -> None:
    values = [1.0, 2.0, 1.5, 2.3, -0.4, 3.6, 1.9]
    given = measured(seeded("t/a", values, "loss"))
    made = bound(given, Fraction(edge), "at_most")
    count, sd = asked(made.needed, "seeds"), stdev(values)
    gap = abs(fmean(values) - float(edge))

    def decided(seeds: int) -> bool:
        return bool(stats.t.ppf(0.95, seeds - 1) * sd / sqrt(seeds) <= gap)

    assert count > len(values)
    assert decided(count)
    assert not decided(max(len(values), int(count / 1.16)))


@pytest.mark.parametrize(("share_", "count"), [(1.01, 4), (0.99, 5)])
def test_one_seed_more_may_be_enough(share_: float, count: int) -> None:
    values = [1.0, 2.0, 3.0]
    reach = stats.t.ppf(0.95, 3) * 1.0 / sqrt(4)
    edge = Fraction(2 + share_ * reach)
    made = bound(measured(seeded("t/a", values, "loss")), edge, "at_most")
    assert made.needed == f"about {count} seeds"


@pytest.mark.parametrize(
    ("count", "distance", "needed"),
    [
        (8695, "0.0085", "about 10000 seeds"),
        (8696, "0.0085", "more than 10,000 seeds"),
        (8695, "0.0080", "more than 10,000 seeds"),
        (6, "0.0001", "more than 10,000 seeds"),
    ],
)
def test_seeds_are_asked_up_to_ten_thousand(count: int, distance: str, needed: str) -> None:
    """0 and 1 in turn: their sd is a half."""
    seeds = tuple(Seed(str(i), Fraction(i % 2), None, None, None) for i in range(count))
    mean = Fraction(count // 2, count)
    given = Measurement("t/a", "loss", mean, None, None, seeds, None, ())
    assert bound(given, mean + Fraction(distance), "at_most").needed == needed


@pytest.mark.parametrize("cell", [share("t/a", 104, 208), seeded("t/a", [49.0, 51.0])])
def test_nothing_decides_at_the_bound(cell: Cell) -> None:
    assert bound(measured(cell), Fraction(50), "at_most").needed == STANDOFF


@pytest.mark.parametrize("start", [10.0, 100.0, 1000.0])
@pytest.mark.parametrize("share_", [0.001, 0.05])
def test_the_smallest_size_is_found_to_its_share_or_a_whole_unit(
    start: float, share_: float
) -> None:
    for true in [start * (1 + 0.137 * i) for i in range(1, 60)]:
        size = smallest(lambda size, true=true: size >= true, start, share_)  # type: ignore[misc]
        assert size is not None
        assert true <= size <= true + max(1.0, share_ * size)


def test_sizes_up_to_a_billion_are_tried() -> None:
    for least, start in ((10**9, 10**9 / 1024), (10**9 + 1, (10**9 + 1) / 1024)):
        size = smallest(lambda size, least=least: size >= least, start)  # type: ignore[misc]
        assert size == (least if least == 10**9 else None)
    assert smallest(lambda size: True, 7.0) == 7.0


def from_(least: int) -> Any:
    """A spread that decides from so many seeds on."""
    return lambda count, k: Spread(1e-9 if count >= least else 1e9, 9.0, "")


@pytest.mark.parametrize(
    ("sizes", "least", "said"),
    [
        ((1, 3), 2, "about 2 seeds"),
        ((1, 3), 3, "about 3 seeds"),
        ((9999, 3), 10_000, "about 10000 seeds"),
        ((10_000, 3), 10_001, "no number of seeds"),
    ],
)
def test_seeds_are_tried_from_one_more_to_ten_thousand(
    sizes: tuple[int, int], least: int, said: str
) -> None:
    assert needed_seeds(from_(least), sizes, 0.0, 1.0, 0.0).startswith(said)


def test_seeds_are_tried_here_and_then_on_both_sides() -> None:
    def trial(count: int, k: int) -> Spread:
        return Spread(1e-9 if k >= 8 else 1e9, 9.0, "")

    assert needed_seeds(trial, (3, 5), 0.0, 1.0, 0.0) == "about 8 seeds on both sides"
    assert needed_seeds(trial, (3, 8), 0.0, 1.0, 0.0) == "about 4 seeds"


@pytest.mark.parametrize(
    ("gap", "margin", "blur", "decides"),
    [(0.0, 1.0, 1.0, True), (0.0, 1.0, 1.1, False), (2.0, 1.0, 1.9, True), (2.0, 1.0, 2.1, False)],
)
def test_printed_precision_widens_what_is_to_be_decided(
    gap: float, margin: float, blur: float, decides: bool
) -> None:
    said = needed_seeds(lambda *_: Spread(1e-12, 9.0, ""), (3, 3), gap, margin - 1e-9, blur - 1e-6)
    assert said.startswith("about 4 seeds" if decides else "no number")


def test_few_sizes_are_tried_on_the_way_to_ten_thousand() -> None:
    """A planning figure needs no more: steps of 15 %, so some sixty for each of the two ways."""
    asked_for: list[int] = []

    def trial(count: int, k: int) -> Spread:
        asked_for.append(count)
        return Spread(1e9, 9.0, "")

    assert needed_seeds(trial, (3, 3), 0.0, 1.0, 0.0).startswith("no number")
    assert 50 < len(asked_for) < 130
    assert max(b / a for a, b in pairwise(asked_for)) <= 1.25
