"""``bound``: one-sided, decided by a confidence limit and never by the point estimate."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from kit.verify.finding import Finding, conclude
from kit.verify.measurement import Measurement
from kit.verify.numbers import rounded, scale_of, show
from kit.verify.planning import smallest
from kit.verify.proportions import clopper_pearson
from kit.verify.seeds import mean_spread, seed_group
from kit.verify.special import t_quantile
from kit.verify.verdict import Interval

STANDOFF = "nothing decides while the value stands at the bound"


def limits(cell: Measurement) -> tuple[float, float, str] | None:
    """One-sided 95 % limits of the measured value, in its unit; None without a noise model.

    Seeds: ``mean -+ t(0.95, m-1) s / sqrt(m)``. A proportion measured once: Clopper-Pearson,
    which never covers less than it says; 0 of 208 still allows 1.43 %.
    """
    if cell.seeds:
        seeds = seed_group(cell)
        spread = mean_spread(seeds)
        if spread is None:
            return None
        low, high = spread.interval(float(seeds.mean), 0.90)
        if cell.proportion:
            low, high = max(low, 0.0), min(high, scale_of(cell.unit))
        return low, high, spread.how
    if cell.k is None or cell.n is None:
        return None
    low, high = clopper_pearson(cell.k, cell.n, 0.90)
    scale = scale_of(cell.unit)
    return low * scale, high * scale, f"{cell.k} of {cell.n}"


def bound(cell: Measurement, value: Fraction, side: str) -> Finding:
    """Reproduced: the far limit is on the right side. Deviates: the near limit is on the wrong.

    Args:
        cell: The measurement.
        value: The bound, in the cell's unit.
        side: ``at_most`` or ``at_least``.
    """
    assert cell.value is not None
    word = "at most" if side == "at_most" else "at least"
    asked = f"{word} {show(value)} asked"
    gap = float(cell.value - value)
    interval = limits(cell)
    if interval is None:
        kept = cell.value <= value if side == "at_most" else cell.value >= value
        return Finding(
            "reproduced" if kept else "deviates",
            f"{show(cell.value)}, {asked}; no noise model",
            difference=gap,
            margin=float(value),
        )
    low, high, how = interval
    edge = float(value)
    holds, fails = (high <= edge, low > edge) if side == "at_most" else (low >= edge, high < edge)
    here, lower, upper = (rounded(v, (high - low) / 2, cell.unit) for v in (cell.value, low, high))
    far = f"upper limit {upper}" if side == "at_most" else f"lower limit {lower}"
    verdict = conclude(False, holds, fails)
    return Finding(
        verdict,
        f"{here} ({how}), one-sided 95 % {far}, {asked}",
        difference=gap,
        interval_equivalence=Interval(low=low - edge, high=high - edge, level=0.90),
        margin=edge,
        needed=_needed(cell, edge, side) if verdict == "inconclusive" else None,
    )


def _needed(cell: Measurement, edge: float, side: str) -> str:
    assert cell.value is not None
    here = float(cell.value)
    if here == edge:
        return STANDOFF
    if cell.seeds:
        return _needed_seeds(cell, abs(here - edge))
    (k, n), scale = cell.counted, scale_of(cell.unit)

    def decided(items: float) -> bool:
        low, high = clopper_pearson(k * items / n, items, 0.90)
        return high * scale <= edge or low * scale >= edge

    items = smallest(decided, n, 0.001)
    return STANDOFF if items is None else f"about {ceil(items):,} items"


def _needed_seeds(cell: Measurement, distance: float) -> str:
    spread = mean_spread(seed_group(cell))
    assert spread is not None
    sd = spread.error * len(cell.seeds) ** 0.5
    count = len(cell.seeds) + 1
    while t_quantile(0.95, count - 1) * sd / count**0.5 > distance and count < 10_000:
        count = max(count + 1, int(count * 1.15))
    return f"about {count} seeds"
