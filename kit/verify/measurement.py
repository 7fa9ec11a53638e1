"""One measured cell in the unit of its expectation, checked for contradictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import isfinite

from kit.errors import InvalidInput
from kit.manifest.printed import factor
from kit.results.asks import curves_of
from kit.results.labels import Labels, LabelSource
from kit.results.types import Cell, Curve, Point, SeedValue, Series
from kit.verify.numbers import PROPORTIONS, exact, scale_of
from kit.verify.proportions import Ratio

AGREE = Fraction(1, 1_000_000)
"""How far a stored value may be from its own k/n, as a share of the whole."""


@dataclass(frozen=True)
class Seed:
    """One replicate, in the expectation's unit."""

    id: str
    value: Fraction
    k: int | None
    n: int | None
    labels: str | None
    beyond: bool = False
    """The true value is larger: a crossing that did not happen while it was measured."""


@dataclass(frozen=True)
class Measurement:
    """What a run says about one cell.

    Attributes:
        id: Cell id.
        unit: Unit of the expectation; everything below stands in it.
        value: Exact value; the mean over seeds. None for a curve, and where a seed is ``beyond``.
        k: Count behind a proportion measured once.
        n: Items behind a proportion (of each seed).
        seeds: Replicates, when there are at least two, or a single one is ``beyond``; items and
            seeds are never pooled.
        labels: Reference of the per-item labels of a cell measured once.
        curves: Of a trajectory, one a replicate.
        source: Where labels are read from.
        ratio: The proportions behind a ratio that was measured once.
        published_ratio: The proportions behind the number that it is compared with.
    """

    id: str
    unit: str
    value: Fraction | None
    k: int | None
    n: int | None
    seeds: tuple[Seed, ...]
    labels: str | None
    curves: tuple[Curve, ...]
    source: LabelSource | None = None
    ratio: Ratio | None = None
    published_ratio: Ratio | None = None

    @property
    def proportion(self) -> bool:
        """A share of n items, measured once or on each seed."""
        if self.seeds:
            return all(seed.k is not None and seed.n is not None for seed in self.seeds)
        return self.k is not None and self.n is not None

    @property
    def counted(self) -> tuple[int, int]:
        """Count and items of a proportion measured once."""
        assert self.k is not None
        assert self.n is not None
        return self.k, self.n

    @property
    def censored(self) -> bool:
        """Some seed's value is only known to be larger than something."""
        return any(seed.beyond for seed in self.seeds)

    def read_labels(self) -> Labels | None:
        """Per-item labels of a cell measured once, where they exist."""
        if self.labels is None or self.source is None or self.seeds:
            return None
        return self.source.get(self.labels)


def measure(
    cell: Cell,
    unit: str,
    where: str,
    source: LabelSource | None,
    series: Sequence[Series] = (),
) -> Measurement:
    """Convert a results cell into the expectation's unit.

    Args:
        cell: As read from the table.
        unit: Unit of the expectation.
        where: File, for messages.
        source: Where its labels are.
        series: Of the same table, for a cell that is a trajectory.

    Raises:
        InvalidInput: Not a finite number, k > n, a value that contradicts k/n or its seeds, a
            seed twice, labels of another length or sum, units that cannot be converted, a line
            that is not there or whose points do not rise.
    """
    here = f"{where}: cell {cell.id}"
    ratio = factor(cell.unit, unit)
    if ratio is None:
        raise InvalidInput(
            f"field 'unit': {cell.unit!r} cannot be compared with {unit!r}", where=here
        )
    seeds = tuple(_seed(seed, cell, ratio, here, source) for seed in cell.seeds)
    names = [seed.id for seed in seeds]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"field 'seeds': seed {twice!r} stands twice", where=here)
    value = _value(cell.value, cell.k, cell.n, cell.unit, ratio, f"{here}: field 'value'")
    censored = any(seed.beyond for seed in seeds)
    if censored and value is not None:
        raise InvalidInput(
            "field 'value': there is no mean where the value of a seed is beyond what was measured",
            where=here,
        )
    if seeds and not censored:
        mean = sum((seed.value for seed in seeds), Fraction(0)) / len(seeds)
        _same(value, mean, unit, f"{here}: field 'value'", "the mean of its seeds")
        value = mean
    k, n, labels = cell.k, cell.n, cell.labels
    if len(seeds) == 1 and not censored:
        k, n, labels, seeds = seeds[0].k, seeds[0].n, seeds[0].labels, ()
    if seeds:
        n = _common_n(seeds)
    else:
        check_labels(labels, k, n, source, here)
    curves = _curves(cell, unit, here, series)
    return Measurement(cell.id, unit, value, k, n, seeds, labels, curves, source)


def _curves(cell: Cell, unit: str, where: str, series: Sequence[Series]) -> tuple[Curve, ...]:
    """The curves that a cell refers to, in the expectation's unit."""
    if cell.trajectory is None:
        return ()
    here = f"{where}: field 'trajectory'"
    try:
        curves, own = curves_of(cell.trajectory, series)
    except ValueError as error:
        raise InvalidInput(str(error), where=here) from None
    ratio = factor(own, unit)
    if ratio is None:
        raise InvalidInput(f"field 'unit': {own!r} cannot be compared with {unit!r}", where=here)
    names = [curve.seed for curve in curves]
    if len(set(names)) != len(names):
        raise InvalidInput("two curves of one seed", where=here)
    return tuple(_curve(curve, own, ratio, here) for curve in curves)


def _curve(curve: Curve, unit: str, ratio: Fraction, where: str) -> Curve:
    inside = f"{where}: seed {curve.seed}" if curve.seed else where
    xs = [point.x for point in curve.points]
    if not all(isfinite(x) for x in xs) or any(b <= a for a, b in pairwise(xs)):
        raise InvalidInput("field 'points': x does not rise", where=inside)
    points = []
    for point in curve.points:
        at = f"{inside}: x = {point.x:g}: field 'value'"
        value = _value(point.value, point.k, point.n, unit, ratio, at)
        assert value is not None
        points.append(Point(point.x, float(value), point.k, point.n))
    return Curve(seed=curve.seed, points=points)


def _seed(
    seed: SeedValue, cell: Cell, ratio: Fraction, where: str, source: LabelSource | None
) -> Seed:
    inside = f"{where}: seed {seed.seed}"
    value = _value(seed.value, seed.k, seed.n, cell.unit, ratio, f"{inside}: field 'value'")
    assert value is not None
    check_labels(seed.labels, seed.k, seed.n, source, inside)
    return Seed(seed.seed, value, seed.k, seed.n, seed.labels, seed.beyond)


def _value(
    value: float | None, k: int | None, n: int | None, unit: str, ratio: Fraction, where: str
) -> Fraction | None:
    """The exact value in the expectation's unit; k/n where there is one."""
    if value is not None and not isfinite(value):
        raise InvalidInput("not a finite number", where=where)
    base = where.rpartition(": field")[0]
    if (k is None) != (n is None) and unit in PROPORTIONS and k is not None:
        raise InvalidInput("field 'n' is missing beside k", where=base)
    if k is None or n is None or unit not in PROPORTIONS:
        return exact(value) * ratio if value is not None else None
    if n < 1 or k < 0 or k > n:
        raise InvalidInput(f"field 'k': {k} of {n} items is impossible", where=base)
    whole = Fraction(100 if unit == "percent" else 1)
    share = whole * Fraction(k, n)
    if value is not None and abs(exact(value) - share) > AGREE * whole:
        raise InvalidInput(
            f"{value!r} {unit} contradicts k/n = {k}/{n} = {float(share):.6g} {unit}",
            where=where,
            why="the table was edited by hand, or percent and fraction were exchanged",
        )
    return share * ratio


def _same(value: Fraction | None, other: Fraction, unit: str, where: str, what: str) -> None:
    if value is None:
        return
    allowed = AGREE * max(abs(other), Fraction(scale_of(unit)))
    if abs(value - other) > allowed:
        raise InvalidInput(
            f"{float(value):.6g} contradicts {what}, {float(other):.6g}",
            where=where,
            why="the table was edited by hand, or written by two different runs",
        )


def _common_n(seeds: tuple[Seed, ...]) -> int | None:
    sizes = {seed.n for seed in seeds}
    return sizes.pop() if len(sizes) == 1 else None


def check_labels(
    reference: str | None, k: int | None, n: int | None, source: LabelSource | None, where: str
) -> None:
    """Labels must have n entries and k ones.

    Raises:
        InvalidInput: They have not.
    """
    if reference is None or source is None or n is None:
        return
    labels = source.get(reference)
    if labels.n != n:
        raise InvalidInput(
            f"field 'labels': {reference} has {labels.n} labels for n = {n}", where=where
        )
    if k is not None and labels.k != k:
        raise InvalidInput(
            f"field 'labels': {reference} has {labels.k} ones for k = {k}", where=where
        )
