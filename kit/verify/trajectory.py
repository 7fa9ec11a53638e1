"""Mean lines and intervals of trajectories; ``verify`` and ``report`` both take them from here.

Over seeds the interval is t over the seeds' values at that x; a proportion measured on a single
seed has Wilson's interval over its items; any other single number has none. An interval is
pointwise: it covers the truth at one x with its level, not the whole line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kit.results.types import Cell, Curve, Point, SeedValue
from kit.verify.measurement import Measurement, measure
from kit.verify.numbers import PROPORTIONS, scale_of
from kit.verify.proportions import Z95, wilson
from kit.verify.seeds import mean_spread, seed_group
from kit.verify.verdict import Interval


@dataclass(frozen=True)
class MeanPoint:
    """A point of a mean line.

    Attributes:
        x: Where.
        value: Mean over the seeds.
        interval: 95 %; None where nothing says how the value spreads.
    """

    x: float
    value: float
    interval: Interval | None


def shared_grid(curves: Sequence[Curve]) -> list[float]:
    """The x values that every curve has, rising."""
    if not curves:
        return []
    common = set.intersection(*({point.x for point in curve.points} for curve in curves))
    return sorted(common)


def point_at(curves: Sequence[Curve], x: float, unit: str) -> Measurement:
    """What the curves say at an x that all of them have, as a measured number.

    Args:
        curves: In ``unit``.
        x: One of :func:`shared_grid`.
        unit: Of the values.
    """
    return _at(_by_x(curves), x, unit)


def mean_line(curves: Sequence[Curve], unit: str, most: int | None = None) -> list[MeanPoint]:
    """Mean over the curves, with its interval, wherever all of them have a point.

    Args:
        curves: One a seed; in ``unit``.
        unit: Of the values.
        most: Points wanted at most; from more, evenly spaced ones, both ends among them.
    """
    grid, points = shared_grid(curves), _by_x(curves)
    if most is not None and len(grid) > most:
        last = len(grid) - 1
        grid = [grid[round(i * last / (most - 1))] for i in range(most)]
    line = []
    for x in grid:
        cell = _at(points, x, unit)
        assert cell.value is not None
        line.append(MeanPoint(x, float(cell.value), value_interval(cell)))
    return line


def _by_x(curves: Sequence[Curve]) -> list[tuple[str, dict[float, Point]]]:
    return [(curve.seed, {point.x: point for point in curve.points}) for curve in curves]


def _at(points: Sequence[tuple[str, dict[float, Point]]], x: float, unit: str) -> Measurement:
    seeds = [SeedValue(seed=seed, value=at[x].value, k=at[x].k, n=at[x].n) for seed, at in points]
    return measure(Cell(id=f"x = {x:g}", unit=unit, seeds=seeds), unit, "a trajectory", None)


def share_interval(value: float, n: int, unit: str) -> Interval | None:
    """Wilson's 95 % interval of a printed proportion of n items; None for what is none."""
    scale = scale_of(unit)
    if unit not in PROPORTIONS or not 0 <= value <= scale:
        return None
    low, high = wilson(value / scale, n, Z95)
    return Interval(low=low * scale, high=high * scale, level=0.95)


def value_interval(cell: Measurement) -> Interval | None:
    """95 % interval of the measured value: t over seeds, Wilson for one proportion."""
    assert cell.value is not None
    scale = scale_of(cell.unit)
    if cell.seeds:
        spread = mean_spread(seed_group(cell))
        if spread is None:
            return None
        low, high = spread.interval(float(cell.value), 0.95)
        if cell.proportion:
            low, high = max(low, 0.0), min(high, scale)
        return Interval(low=low, high=high, level=0.95)
    if cell.k is None or cell.n is None:
        return None
    low, high = wilson(cell.k / cell.n, cell.n, Z95)
    return Interval(low=low * scale, high=high * scale, level=0.95)
