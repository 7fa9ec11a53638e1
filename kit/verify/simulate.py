"""Random measurements at a known truth, and the power theory gives them.

The published number is taken as the truth, shifted by a planted amount. Power comes from normal
(for proportions: arcsine) formulas that share no code with the verdict, so that the two columns of
the self-test check each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import asin, nan, sqrt
from typing import Any

from kit.manifest.expectation_types import ExpectedCell
from kit.verify.finding import Finding
from kit.verify.kinds.items import paired
from kit.verify.measurement import Measurement, Seed
from kit.verify.numbers import exact, scale_of
from kit.verify.proportions import Z95
from kit.verify.seeds import seed_group
from kit.verify.special import normal_tail, t_quantile

Draw = Callable[[Any], Finding]


@dataclass(frozen=True)
class Experiment:
    """A way to draw findings at a truth that lies ``shift`` from the published number.

    Attributes:
        draw: One finding from a random generator.
        power: Probability of a shown difference, by theory; nan where there is none.
    """

    draw: Draw
    power: float


def experiment(
    expected: ExpectedCell, cell: Measurement, judge: Callable[[Measurement], Finding], shift: float
) -> Experiment | None:
    """How to redraw this cell at a truth shifted by ``shift`` (in the cell's unit).

    Args:
        expected: The expectation; its published number is the truth that is shifted.
        cell: The measurement; says how many items and seeds there are, and how they spread.
        judge: The comparison under test.
        shift: Planted deviation; 0 asks for the false-alarm rate.
    """
    rule = expected.tolerance
    if rule is None or cell.value is None or rule.kind == "trajectory":
        return None
    base = _base(expected)
    if base is None:
        return None
    if cell.seeds and rule.kind in ("seeds", "bound"):
        return _over_seeds(expected, cell, judge, base, shift)
    if not cell.proportion or rule.kind in ("exact", "absolute", "relative", "seeds"):
        moved = _moved(cell, base + shift)
        return Experiment(lambda random: judge(moved), nan)
    return None if cell.seeds else _items(expected, cell, judge, base, shift)


def _base(expected: ExpectedCell) -> float | None:
    rule = expected.tolerance
    if rule is not None and rule.kind == "bound" and rule.bound is not None:
        return float(rule.bound)
    if expected.reference is not None:
        return float(expected.reference.mean)
    return float(expected.value) if expected.value is not None else None


def _moved(cell: Measurement, value: float) -> Measurement:
    return Measurement(cell.id, cell.unit, exact(value), None, None, (), None, cell.curves)


def _items(
    expected: ExpectedCell,
    cell: Measurement,
    judge: Callable[[Measurement], Finding],
    base: float,
    shift: float,
) -> Experiment:
    rule = expected.tolerance
    assert rule is not None
    assert cell.n is not None
    n, scale = cell.n, scale_of(cell.unit)
    p0, p1 = base / scale, min(1.0, max(0.0, (base + shift) / scale))
    d = p1 - p0

    def at(k: int) -> Measurement:
        share = Fraction(k * int(scale), n)
        return Measurement(cell.id, cell.unit, share, k, n, (), None, ())

    if rule.kind in ("flip", "paired"):
        f = float(rule.flip_rate or "0.02")
        up, down = min(f / 2 + max(d, 0.0), 1.0), min(f / 2 + max(-d, 0.0), 1.0)
        power = _two_sided(d * sqrt(n), Z95 * sqrt(f), sqrt(max(up + down - d * d, 1e-12)))
        margin = Fraction(rule.margin or "0")
        start = round(p0 * n)

        def draw(random: Any) -> Finding:
            more, fewer, _ = random.multinomial(n, [up, down, max(0.0, 1 - up - down)])
            more, fewer = min(int(more), n - start), min(int(fewer), start)
            if rule.kind == "paired":
                return paired(more, fewer, n, margin, None, cell.unit)
            return judge(at(start + more - fewer))

        return Experiment(draw, power)
    power = (
        _bound_power(p0, p1, n) if rule.kind == "bound" else _arcsine(p0, p1, n, expected.n or n)
    )
    return Experiment(lambda random: judge(at(int(random.binomial(n, p1)))), power)


def _arcsine(p0: float, p1: float, n: int, m: int) -> float:
    """Cohen's h against a fixed published proportion: only this run's items are drawn."""
    h = 2 * asin(sqrt(p1)) - 2 * asin(sqrt(p0))
    return _two_sided(h, Z95 * sqrt(1 / n + 1 / m), sqrt(1 / n))


def _bound_power(p0: float, p1: float, n: int) -> float:
    """One-sided 5 % test of one proportion against the bound, by arcsine."""
    h = abs(2 * asin(sqrt(p1)) - 2 * asin(sqrt(p0)))
    return normal_tail((1.6448536 / sqrt(n) - h) * sqrt(n))


def _two_sided(distance: float, threshold: float, sd: float) -> float:
    """P(|X| > threshold), X normal around the distance."""
    return normal_tail((threshold - distance) / sd) + normal_tail((threshold + distance) / sd)


def _over_seeds(
    expected: ExpectedCell,
    cell: Measurement,
    judge: Callable[[Measurement], Finding],
    base: float,
    shift: float,
) -> Experiment | None:
    """Normal replicates with the spread seen in the reference, else in this run."""
    here, known = seed_group(cell), expected.reference
    sd = float(known.sd) if known is not None and float(known.sd) > 0 else here.sd
    m, k = here.size, known.n_seeds if known is not None else 1
    if sd <= 0:
        return None
    if expected.tolerance is not None and expected.tolerance.kind == "bound":
        power = normal_tail(t_quantile(0.95, m - 1) - abs(shift) * sqrt(m) / sd)
    else:
        critical = t_quantile(0.975, m + k - 2) * sd * sqrt(1 / m + 1 / k)
        power = _two_sided(shift, critical, sd / sqrt(m))

    def draw(random: Any) -> Finding:
        values = random.normal(base + shift, sd, m)
        replicas = tuple(
            Seed(seed.id, exact(float(value)), None, None, None)
            for seed, value in zip(cell.seeds, values, strict=True)
        )
        mean = sum((seed.value for seed in replicas), Fraction(0)) / m
        return judge(Measurement(cell.id, cell.unit, mean, None, None, replicas, None, ()))

    return Experiment(draw, power)
