"""Kinds without a noise model: ``exact``, ``absolute``, ``relative``, ``trajectory``.

All include the printed precision: a published ``"1.9"`` stands for anything from 1.85 to 1.95,
ends included. The comparison is in rationals, so the boundary belongs to the inside exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from kit.manifest.printed import Printed
from kit.verify.finding import Finding, invalid
from kit.verify.numbers import points, printed, show
from kit.verify.verdict import CellVerdict


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


def trajectory(
    measured: Sequence[tuple[float, float]],
    published: Sequence[Sequence[str]],
    margin: Fraction,
    drift: Fraction | None,
) -> Finding:
    """Pointwise ``|D_t| <= margin + u_t`` and zero-mean ``|mean D| <= drift + mean u``.

    The second test sees a one-sided drift that every single point hides (TRL ``tests/invariant``).
    Without a declared ``drift`` half of the margin is used.
    """
    allowed_drift = margin / 2 if drift is None else drift
    ours = {Fraction(repr(x)): Fraction(repr(y)) for x, y in measured}
    gaps: list[tuple[Fraction, Fraction]] = []
    for x, y in published:
        at = Fraction(x)
        if at not in ours:
            return invalid(f"field 'series': no point at x = {x}")
        gaps.append((ours[at] - printed(y).value, printed(y).half))
    if not gaps:
        return invalid("field 'series': the expectation has no points")
    worst = max(range(len(gaps)), key=lambda i: abs(gaps[i][0]) - gaps[i][1])
    mean = sum((gap for gap, _ in gaps), Fraction(0)) / len(gaps)
    blur = sum((half for _, half in gaps), Fraction(0)) / len(gaps)
    identical = all(abs(gap) <= half for gap, half in gaps)
    pointwise = all(abs(gap) <= margin + half for gap, half in gaps)
    level = abs(mean) <= allowed_drift + blur
    detail = (
        f"largest residual {show(gaps[worst][0], signed=True)} at x = {published[worst][0]} "
        f"(margin {show(margin)}), mean residual {show(mean, signed=True)} "
        f"(drift allowed {show(allowed_drift)})"
    )
    verdict: CellVerdict = (
        "match" if identical else "reproduced" if pointwise and level else "deviates"
    )
    return Finding(
        verdict,
        detail,
        difference=float(gaps[worst][0]),
        margin=float(margin),
    )
