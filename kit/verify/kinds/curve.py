"""``trajectory``: a published curve, or single points of one, against measured curves.

Point by point the questions are those of a single cell, with the interval that the point allows:
over seeds as in ``seeds``, for the proportions of a single run as in ``binomial``. Beside the
points stands the drift, the mean residual over them, because a one-sided shift hides below the
margin of every single point (TRL ``tests/invariant``).

Equivalence must be shown at every point and for the drift (intersection-union: no correction). A
difference may show anywhere, so the T points and the drift are tested at 5 % / (T + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt

from kit.manifest.expectation_types import ExpectedCell
from kit.manifest.printed import Printed
from kit.plural import plural
from kit.results.types import Curve
from kit.verify.finding import (
    ALPHA,
    Finding,
    conclude,
    excludes_zero,
    inside,
    invalid,
    scaled,
)
from kit.verify.measurement import Measurement
from kit.verify.numbers import points, printed, rounded, scale_of, show
from kit.verify.proportions import newcombe
from kit.verify.seeds import Spread, group, item_sd, seed_group
from kit.verify.special import normal_quantile
from kit.verify.trajectory import point_at, shared_grid


@dataclass(frozen=True)
class Residual:
    """Measured less published, somewhere or on average.

    Attributes:
        where: ``x = 10``, or ``on average``.
        size: The difference.
        half: Half a unit of the last printed digit.
        wide: Interval at the level of the difference test; None without a noise model.
        narrow: 90 % interval; None likewise.
    """

    where: str
    size: Fraction
    half: Fraction
    wide: tuple[float, float] | None
    narrow: tuple[float, float] | None

    @property
    def identical(self) -> bool:
        """Equal at printed precision."""
        return abs(self.size) <= self.half

    def equivalent(self, margin: Fraction) -> bool:
        """Shown to lie within the margin; without a noise model, as it stands."""
        if self.narrow is None:
            return abs(self.size) <= margin + self.half
        return inside(self.narrow, float(margin))

    def different(self, margin: Fraction) -> bool:
        """Shown to differ; without a noise model, beyond the margin."""
        if self.wide is None:
            return abs(self.size) > margin + self.half
        return excludes_zero(self.wide)


def trajectory(
    cell: Measurement, expected: ExpectedCell, margin: Fraction, drift: Fraction | None
) -> Finding:
    """The published points against the measured curves.

    A single run of numbers that are no proportions has no noise model: ``|D_t| <= margin + u_t``
    and ``|mean D| <= drift + mean u``, as they stand.

    Args:
        cell: Measured curves, in the expectation's unit.
        expected: ``series`` has the published points, ``n`` the items behind each of them,
            ``runs`` how many runs they are means of.
        margin: Of every point.
        drift: Of the mean residual; half of the margin when absent.
    """
    published = [(x, float(Fraction(x)), printed(y, expected.unit)) for x, y in expected.series]
    if not published:
        return invalid("field 'series': the expectation has no points")
    grid = set(shared_grid(cell.curves))
    lacking = [text for text, x, _ in published if x not in grid]
    if lacking:
        return invalid(f"field 'series': no point at x = {lacking[0]} in every curve")
    problem = _other_n(cell.curves, expected)
    if problem:
        return invalid(problem)
    level = 1 - ALPHA / (len(published) + 1)
    residuals = [_at(cell, expected, x, text, said, level) for text, x, said in published]
    average = _average(cell, published, residuals, expected, level)
    return _conclude(residuals, average, margin, margin / 2 if drift is None else drift, cell)


def _other_n(curves: Sequence[Curve], expected: ExpectedCell) -> str:
    wanted = {float(Fraction(x)) for x, _ in expected.series}
    for curve in curves:
        for point in curve.points:
            if point.x in wanted and expected.n and point.n not in (None, expected.n):
                return (
                    f"field 'n' at x = {point.x:g} is {point.n}, the published curve rests on "
                    f"{expected.n} items"
                )
    return ""


def _at(
    cell: Measurement, expected: ExpectedCell, x: float, text: str, said: Printed, level: float
) -> Residual:
    here = point_at(cell.curves, x, cell.unit)
    assert here.value is not None
    gap = here.value - said.value
    where, half = f"x = {text}", float(said.half)
    if here.seeds:
        spread = _against(seed_group(here).sd, item_sd(here), len(here.seeds), expected.runs)
        return _residual(where, gap, said.half, spread, level)
    if not here.proportion:
        return Residual(where, gap, said.half, None, None)
    (k, n), scale = here.counted, scale_of(cell.unit)
    p0 = min(1.0, max(0.0, float(said.value) / scale))

    def interval(at: float) -> tuple[float, float]:
        z = normal_quantile((1 + at) / 2)
        low, high = newcombe(k / n, n, p0, n, z)
        return low * scale - half, high * scale + half

    return Residual(where, gap, said.half, interval(level), interval(0.90))


def _against(sd: float, floor: float | None, seeds: int, runs: int) -> Spread | None:
    """A mean over seeds against a published mean of ``runs`` runs that spread like the seeds."""
    sd = sd or floor or 0.0
    if sd == 0:
        return None
    error = sd * sqrt(1 / seeds + 1 / runs)
    return Spread(error, float(seeds - 1), f"prediction interval from {seeds} seeds")


def _average(
    cell: Measurement,
    published: Sequence[tuple[str, float, Printed]],
    residuals: Sequence[Residual],
    expected: ExpectedCell,
    level: float,
) -> Residual:
    """The mean residual over the points, one value a seed.

    The points of a single run share their items, in a way that nobody recorded: their mean then
    has the mean of their intervals, which is right when they move together and too wide otherwise.
    What is published moves every seed alike, and so not their spread.
    """
    count = len(residuals)
    size = sum((residual.size for residual in residuals), Fraction(0)) / count
    half = sum((residual.half for residual in residuals), Fraction(0)) / count
    if len(cell.curves) < 2:
        return Residual(
            "on average",
            size,
            half,
            _mean_interval([residual.wide for residual in residuals]),
            _mean_interval([residual.narrow for residual in residuals]),
        )
    means = []
    for curve in cell.curves:
        at = {point.x: Fraction(repr(point.value)) for point in curve.points}
        means.append(group([at[x] for _, x, _ in published]).mean)
    spread = _against(group(means).sd, None, len(means), expected.runs)
    return _residual("on average", size, half, spread, level)


def _residual(
    where: str, size: Fraction, half: Fraction, spread: Spread | None, level: float
) -> Residual:
    if spread is None:
        return Residual(where, size, half, None, None)
    wide, narrow = (spread.interval(float(size), at, float(half)) for at in (level, 0.90))
    return Residual(where, size, half, wide, narrow)


def _mean_interval(
    intervals: Sequence[tuple[float, float] | None],
) -> tuple[float, float] | None:
    known = [interval for interval in intervals if interval is not None]
    if len(known) < len(intervals):
        return None
    lows, highs = zip(*known, strict=True)
    return sum(lows) / len(known), sum(highs) / len(known)


def _conclude(
    residuals: Sequence[Residual],
    average: Residual,
    margin: Fraction,
    drift: Fraction,
    cell: Measurement,
) -> Finding:
    worst = max(residuals, key=lambda residual: abs(residual.size) - residual.half)
    limits = [*((residual, margin) for residual in residuals), (average, drift)]
    different = [residual for residual, limit in limits if residual.different(limit)]
    verdict = conclude(
        all(residual.identical for residual in residuals),
        all(residual.equivalent(limit) for residual, limit in limits),
        bool(different),
    )
    unit = points(cell.unit)
    detail = (
        f"largest residual {_rounded(worst, worst.size, cell)}{unit} at {worst.where} "
        f"(margin {show(margin)}), mean residual {_rounded(average, average.size, cell)} "
        f"(drift allowed {show(drift)}); {_how(cell, worst)}"
    )
    if verdict == "deviates":
        detail += f"; shown {different[0].where}"
    if verdict == "inconclusive":
        still = [residual.where for residual, limit in limits if not residual.equivalent(limit)]
        detail += f"; open {', '.join(still[:3])}{', ...' if len(still) > 3 else ''}"
    shifted = verdict == "reproduced" and bool(different)
    if shifted:
        detail += "; equal within the margin, yet shifted"
    return Finding(
        verdict,
        detail,
        difference=float(worst.size),
        interval_equivalence=None if worst.narrow is None else scaled(worst.narrow, 0.90),
        margin=float(margin),
        shifted=shifted,
        needed="more seeds, or more items" if verdict == "inconclusive" else None,
    )


def _rounded(of: Residual, value: float | Fraction, cell: Measurement) -> str:
    half = 0.0 if of.narrow is None else (of.narrow[1] - of.narrow[0]) / 2
    return rounded(value, half, cell.unit, signed=True)


def _how(cell: Measurement, worst: Residual) -> str:
    if worst.narrow is None:
        return "no noise model"
    low, high = worst.narrow
    span = f"90 % interval there {_rounded(worst, low, cell)} to {_rounded(worst, high, cell)}"
    return f"{span}, {plural(len(cell.curves), 'seed') if cell.curves[1:] else 'a single run'}"
