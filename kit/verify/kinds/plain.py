"""Kinds for a number as it stands: ``exact``, ``absolute``, ``relative`` and ``bound``.

The first three have no noise model. All include the printed precision: a published ``"1.9"`` stands
for anything from 1.85 to 1.95, ends included. The comparison is in rationals, so the boundary
belongs to the inside exactly. ``bound`` is one-sided, decided by a confidence limit and never by
the point estimate. A first crossing that did not happen in some seeds (:func:`never`) has a lower
limit only, whatever its kind.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil

from kit.manifest.expectation_types import ExpectedCell, Tolerance
from kit.manifest.printed import Printed
from kit.verify.censored import in_words, ordering, values_of
from kit.verify.finding import ALPHA, Finding, conclude, with_needed
from kit.verify.measurement import Measurement
from kit.verify.numbers import points, rounded, scale_of, show
from kit.verify.planning import smallest
from kit.verify.proportions import clopper_pearson
from kit.verify.seeds import baseline, mean_spread, seed_group
from kit.verify.special import t_quantile
from kit.verify.verdict import Interval


def exact(measured: Fraction, published: Printed, unit: str) -> Finding:
    """Equal after rounding to the printed digits: ``|x - x0| <= u``."""
    gap = measured - published.value
    same = abs(gap) <= published.half
    says = "equal at printed precision" if same else f"{show(gap, signed=True)}{points(unit)}"
    return Finding(
        "match" if same else "deviates",
        f"{says}; exact equality asked",
        difference=float(gap),
        margin=0.0,
    )


def absolute(measured: Fraction, published: Printed, margin: Fraction, unit: str) -> Finding:
    """``|x - x0| <= margin + u``."""
    return _plain(measured, published, margin, unit, f"margin {show(margin)}")


def relative(
    measured: Fraction, published: Printed, margin: Fraction, floor: Fraction, unit: str
) -> Finding:
    """``|x - x0| <= max(margin |x0|, floor) + u``; relative to the published side.

    Refused for proportions before it gets here: 5 % of an attack success rate of 0.5 % is a
    twentieth of one item of 208.
    """
    allowed = max(margin * abs(published.value), floor)
    says = f"margin {show(100 * margin)} % of the published value = {show(allowed)}"
    return _plain(measured, published, allowed, unit, says)


def _plain(
    measured: Fraction, published: Printed, allowed: Fraction, unit: str, says: str
) -> Finding:
    gap = measured - published.value
    if abs(gap) <= published.half:
        return Finding(
            "match", f"equal at printed precision; {says}", float(gap), margin=float(allowed)
        )
    inside = abs(gap) <= allowed + published.half
    return Finding(
        "reproduced" if inside else "deviates",
        f"difference {show(gap, signed=True)}{points(unit)}; {says}; no noise model",
        difference=float(gap),
        margin=float(allowed),
    )


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
    if not cell.proportion:
        return None
    (k, n), scale = cell.counted, scale_of(cell.unit)
    low, high = clopper_pearson(k, n, 0.90)
    return low * scale, high * scale, f"{k} of {n}"


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
    while t_quantile(0.95, count - 1) * sd / count**0.5 > distance:
        count = max(count + 1, int(count * 1.15))
        if count > 10_000:
            return "more than 10,000 seeds"
    return f"about {count} seeds"


def never(cell: Measurement, expected: ExpectedCell, rule: Tolerance) -> Finding:
    """No mean and no interval exist, so equivalence cannot be shown; a difference can.

    A single run deviates when it was followed past everything that the tolerance allows. Seeds
    deviate, or keep a ``bound``, by the exact sign test against the number.
    """
    says = in_words(cell)
    if rule.kind == "bound":
        assert rule.bound is not None
        return _bound(cell, Fraction(rule.bound), rule.side or "at_least", says)
    said = baseline(expected)
    assert said is not None
    if len(cell.seeds) == 1:
        return _single(cell, said.value + said.half, expected, rule, says)
    known = ordering(cell, None, said.value, Fraction(1))
    assert known.p is not None
    open_ = Finding("inconclusive", f"{says}, against {said.text}: {known.method}", p=known.p)
    if known.p <= ALPHA:
        return replace(open_, verdict="deviates")
    return with_needed(open_, "curves that reach further, or more seeds")


def _bound(cell: Measurement, value: Fraction, side: str, says: str) -> Finding:
    word = "at most" if side == "at_most" else "at least"
    detail = f"{says}, {word} {show(value)} asked"
    if len(cell.seeds) == 1:
        return Finding(
            "inconclusive", f"{detail}; one run says nothing about seeds", needed="at least 5 seeds"
        )
    known = ordering(cell, None, value, Fraction(1))
    known = known.flipped() if side == "at_most" else known
    assert known.above is not None
    assert known.below is not None
    verdict = conclude(False, known.above <= ALPHA, known.below <= ALPHA)
    return Finding(
        verdict,
        f"{detail}; {known.method}",
        margin=float(value),
        needed="curves that reach further, or more seeds" if verdict == "inconclusive" else None,
    )


def _single(
    cell: Measurement, upper: Fraction, expected: ExpectedCell, rule: Tolerance, says: str
) -> Finding:
    ((_, last),) = values_of(cell)
    margin = Fraction(rule.margin or "0")
    if rule.kind == "relative":
        margin = max(margin * abs(upper), Fraction(rule.floor or "0"))
    detail = f"{says}, against {expected.value or 'the reference'}"
    if rule.kind in ("exact", "absolute", "relative") and last.value >= upper + margin:
        return Finding("deviates", f"{detail}; margin {show(margin)}, no noise model")
    return Finding(
        "inconclusive",
        f"{detail}; one run that was not followed further",
        needed="a curve that reaches further, and at least 5 seeds",
    )
