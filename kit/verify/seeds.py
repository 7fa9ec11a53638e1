"""Means over seeds: t-statistics, with the unit being the seed and never the item.

Three seeds of 208 items are three observations, not 624: a training run that went wrong went
wrong for all its items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf, sqrt

from kit.manifest.expectation_types import ExpectedCell, Reference
from kit.manifest.printed import Printed
from kit.verify.measurement import Measurement
from kit.verify.numbers import printed, scale_of
from kit.verify.proportions import shrunk_sd
from kit.verify.special import t_quantile, t_tail


@dataclass(frozen=True)
class Group:
    """A mean over replicates.

    Attributes:
        mean: Exact mean.
        sd: Sample standard deviation (n - 1); 0.0 for a single value.
        size: How many values.
        floor: What one value's sd is at least, where it can be said (item sampling of a
            proportion); None otherwise.
    """

    mean: Fraction
    sd: float
    size: int
    floor: float | None = None


def group(values: Sequence[Fraction], floor: float | None = None) -> Group:
    """Exact mean and sample sd; equal values have sd exactly 0, because the mean is exact."""
    mean = sum(values, Fraction(0)) / len(values)
    if len(values) < 2:
        return Group(mean, 0.0, len(values), floor)
    centre = float(mean)
    squares = sum((float(value) - centre) ** 2 for value in values)
    return Group(mean, sqrt(squares / (len(values) - 1)), len(values), floor)


def seed_group(cell: Measurement) -> Group:
    """The seeds of a measured cell (or its one value) as a group."""
    values = [seed.value for seed in cell.seeds]
    if not values:
        assert cell.value is not None
        values = [cell.value]
    return group(values, item_sd(cell))


def matched(
    here: Mapping[str, Fraction], there: Mapping[str, Fraction]
) -> dict[str, tuple[Fraction, Fraction]]:
    """Replicates of two sides brought together by their ids, each with its mean on either side.

    An id has a part for each axis of replicates (``pair/seed``). Axes whose values here are all
    among those there say which replicates belong together; over the others, such as new seeds of
    the same pairs, the mean is taken.

    Returns:
        Shared part of the id -> the means here and there; empty when nothing is shared.
    """
    ids = [id.split("/") for id in (*here, *there)]
    if not here or not there or len({len(parts) for parts in ids}) != 1:
        return {}
    ours, theirs = zip(*ids[: len(here)], strict=True), zip(*ids[len(here) :], strict=True)
    axes = [i for i, (x, y) in enumerate(zip(ours, theirs, strict=True)) if set(x) <= set(y)]

    def means(of: Mapping[str, Fraction]) -> dict[str, Fraction]:
        values: dict[str, list[Fraction]] = {}
        for id, value in of.items():
            key = "/".join(id.split("/")[i] for i in axes)
            values.setdefault(key, []).append(value)
        return {key: sum(parts, Fraction(0)) / len(parts) for key, parts in values.items()}

    first, second = means(here), means(there)
    if not axes or not first.keys() <= second.keys():
        return {}
    return {key: (value, second[key]) for key, value in first.items()}


def item_sd(cell: Measurement) -> float | None:
    """Item-sampling sd of one seed's proportion, in the cell's unit; None for other numbers."""
    sizes = [seed.n for seed in cell.seeds] or [cell.n]
    n = min((size for size in sizes if size is not None), default=None)
    if not cell.proportion or n is None or cell.value is None:
        return None
    scale = scale_of(cell.unit)
    return scale * shrunk_sd(float(cell.value) / scale, n)


@dataclass(frozen=True)
class Spread:
    """Standard error of a difference of means, and its degrees of freedom.

    Attributes:
        error: Standard error.
        df: Degrees of freedom.
        how: Name of the interval, for sentences.
    """

    error: float
    df: float
    how: str

    def interval(self, centre: float, level: float, widen: float = 0.0) -> tuple[float, float]:
        """``centre +- t(df) error``, widened by the printed precision."""
        half = t_quantile((1 + level) / 2, self.df) * self.error + widen
        return centre - half, centre + half

    def tail(self, distance: float) -> float:
        """One-sided p of a distance this large."""
        return t_tail(distance / self.error, self.df)

    def tails(self, distance: float) -> tuple[float, float]:
        """One-sided p-values of "above 0" and "below 0" for a distance with sign."""
        return self.tail(distance), self.tail(-distance)


def welch(here: Group, there: Group) -> Spread | None:
    """Standard error of the difference of two group means.

    Both with two values or more: Welch, ``sqrt(s1^2/m + s2^2/k)`` with Satterthwaite's degrees of
    freedom. One single value: prediction, ``s sqrt(1 + 1/k)`` with ``k - 1``, the spread of the
    single run being taken from the other side. No spread on either side: item sampling stands in
    for a proportion; None for other numbers, and when both sides are single values.
    """
    size = here.size + there.size - 2
    if size < 1:
        return None
    if min(here.size, there.size) == 1:
        many = here if here.size > 1 else there
        variance, df = many.sd**2 * (1 + 1 / many.size), float(many.size - 1)
        how = f"prediction interval from {many.size} seeds"
    else:
        variance, df = combined([(of.sd**2 / of.size, of.size - 1) for of in (here, there)])
        how = f"Welch interval of {here.size} against {there.size} seeds"
    if variance > 0:
        return Spread(sqrt(variance), df, how)
    floors = [group.floor for group in (here, there) if group.floor is not None]
    if not floors:
        return None
    error = max(floors) * sqrt(1 / here.size + 1 / there.size)
    return Spread(error, float(size), "interval (seeds show no spread; item sampling stands in)")


def mean_spread(cell: Group) -> Spread | None:
    """Standard error of one mean over seeds; None for a single value."""
    if cell.size < 2:
        return None
    if cell.sd > 0:
        return Spread(cell.sd / sqrt(cell.size), float(cell.size - 1), f"{cell.size} seeds")
    if cell.floor is None:
        return None
    how = f"{cell.size} seeds without spread; item sampling stands in"
    return Spread(cell.floor / sqrt(cell.size), float(cell.size - 1), how)


def combined(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Variance and Satterthwaite degrees of freedom of a sum of independent parts.

    Args:
        parts: Variance and degrees of freedom of each; ``inf`` where the variance is known.
    """
    variance = sum(part for part, _ in parts)
    loss = sum(part**2 / df for part, df in parts)
    return variance, (variance**2 / loss if loss > 0 else inf)


ROUNDING = 1e-9
"""References keep twelve digits; below this share two numbers are the same."""


def rounding(value: Fraction | float) -> float:
    """How far a number may be off because it was stored with twelve digits."""
    return ROUNDING * max(1.0, abs(float(value)))


def baseline(expected: ExpectedCell) -> Printed | None:
    """The number to compare with; None when there is none yet.

    A reference mean that comes with its values is generated: ``"22.5"`` is exact there and not a
    rounded number, so its half unit is that of the storage.
    """
    if expected.value is not None:
        return printed(expected.value, expected.unit)
    if expected.reference is None:
        return None
    mean = printed(expected.reference.mean)
    stored = Fraction(rounding(mean.value))
    half = stored if expected.reference.values else max(mean.half, stored)
    return Printed(mean.text, mean.value, half)


def reference_group(reference: Reference, floor: float | None) -> Group:
    """The reference seeds as a group; ``floor`` is the least sd of one value, if there is one."""
    values = [Fraction(value) for value in reference.values]
    if not values:
        return Group(Fraction(reference.mean), float(reference.sd), reference.n_seeds, floor)
    return group(values, floor)
