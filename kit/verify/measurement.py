"""One measured cell in the unit of its expectation, checked for contradictions."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isfinite

from kit.errors import InvalidInput
from kit.results.labels import Labels, LabelSource
from kit.results.types import Cell, SeedValue
from kit.verify.numbers import PROPORTIONS, exact, factor, scale_of

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


@dataclass(frozen=True)
class Measurement:
    """What a run says about one cell.

    Attributes:
        id: Cell id.
        unit: Unit of the expectation; everything below stands in it.
        value: Exact value; the mean over seeds.
        k: Count behind a proportion measured once.
        n: Items behind a proportion (of each seed).
        seeds: Replicates, when there are at least two; items and seeds are never pooled.
        labels: Reference of the per-item labels of a cell measured once.
        series: Points of a curve.
        source: Where labels are read from.
    """

    id: str
    unit: str
    value: Fraction | None
    k: int | None
    n: int | None
    seeds: tuple[Seed, ...]
    labels: str | None
    series: tuple[tuple[float, float], ...]
    source: LabelSource | None = None

    @property
    def proportion(self) -> bool:
        """A share of n items, measured once or on each seed."""
        if self.seeds:
            return all(seed.k is not None and seed.n is not None for seed in self.seeds)
        return self.k is not None and self.n is not None

    def read_labels(self) -> Labels | None:
        """Per-item labels of a cell measured once, where they exist."""
        if self.labels is None or self.source is None or self.seeds:
            return None
        return self.source.get(self.labels)


def measure(cell: Cell, unit: str, where: str, source: LabelSource | None) -> Measurement:
    """Convert a results cell into the expectation's unit.

    Args:
        cell: As read from the table.
        unit: Unit of the expectation.
        where: File, for messages.
        source: Where its labels are.

    Raises:
        InvalidInput: Not a finite number, k > n, a value that contradicts k/n or its seeds, a
            seed twice, labels of another length or sum, units that cannot be converted.
    """
    place = f"{where}: cell {cell.id}"
    ratio = factor(cell.unit, unit)
    if ratio is None:
        raise InvalidInput(
            f"field 'unit': {cell.unit!r} cannot be compared with {unit!r}", where=place
        )
    seeds = tuple(_seed(seed, cell, ratio, place, source) for seed in cell.seeds)
    names = [seed.id for seed in seeds]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"field 'seeds': seed {twice!r} stands twice", where=place)
    value = _value(cell.value, cell.k, cell.n, cell.unit, ratio, f"{place}: field 'value'")
    if seeds:
        mean = sum((seed.value for seed in seeds), Fraction(0)) / len(seeds)
        _same(value, mean, unit, f"{place}: field 'value'", "the mean of its seeds")
        value = mean
    k, n, labels = cell.k, cell.n, cell.labels
    if len(seeds) == 1:
        k, n, labels, seeds = seeds[0].k, seeds[0].n, seeds[0].labels, ()
    if seeds:
        n = _common_n(seeds)
    else:
        check_labels(labels, k, n, source, place)
    series = _series(cell, ratio, place)
    return Measurement(cell.id, unit, value, k, n, seeds, labels, series, source)


def _series(cell: Cell, ratio: Fraction, place: str) -> tuple[tuple[float, float], ...]:
    for point in cell.series:
        if len(point) != 2 or not all(isfinite(x) for x in point):
            raise InvalidInput(f"field 'series': {point} is not a point [x, y]", where=place)
    if ratio == 1:
        return tuple((x, y) for x, y in cell.series)
    return tuple((x, float(exact(y) * ratio)) for x, y in cell.series)


def _seed(
    seed: SeedValue, cell: Cell, ratio: Fraction, place: str, source: LabelSource | None
) -> Seed:
    where = f"{place}: seed {seed.seed}"
    value = _value(seed.value, seed.k, seed.n, cell.unit, ratio, f"{where}: field 'value'")
    assert value is not None
    check_labels(seed.labels, seed.k, seed.n, source, where)
    return Seed(seed.seed, value, seed.k, seed.n, seed.labels)


def _value(
    value: float | None, k: int | None, n: int | None, unit: str, ratio: Fraction, place: str
) -> Fraction | None:
    """The exact value in the expectation's unit; k/n where there is one."""
    if value is not None and not isfinite(value):
        raise InvalidInput("not a finite number", where=place)
    base = place.rpartition(": field")[0]
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
            where=place,
            why="the table was edited by hand, or percent and fraction were exchanged",
        )
    return share * ratio


def _same(value: Fraction | None, other: Fraction, unit: str, place: str, what: str) -> None:
    if value is None:
        return
    allowed = AGREE * max(abs(other), Fraction(scale_of(unit)))
    if abs(value - other) > allowed:
        raise InvalidInput(
            f"{float(value):.6g} contradicts {what}, {float(other):.6g}",
            where=place,
            why="the table was edited by hand, or written by two different runs",
        )


def _common_n(seeds: tuple[Seed, ...]) -> int | None:
    sizes = {seed.n for seed in seeds}
    return sizes.pop() if len(sizes) == 1 else None


def check_labels(
    reference: str | None, k: int | None, n: int | None, source: LabelSource | None, place: str
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
            f"field 'labels': {reference} has {labels.n} labels for n = {n}", where=place
        )
    if k is not None and labels.k != k:
        raise InvalidInput(
            f"field 'labels': {reference} has {labels.k} ones for k = {k}", where=place
        )
