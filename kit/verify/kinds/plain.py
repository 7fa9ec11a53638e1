"""Kinds without a noise model: ``exact``, ``absolute``, ``relative``.

All include the printed precision: a published ``"1.9"`` stands for anything from 1.85 to 1.95,
ends included. The comparison is in rationals, so the boundary belongs to the inside exactly.
"""

from __future__ import annotations

from fractions import Fraction

from kit.manifest.printed import Printed
from kit.verify.finding import Finding
from kit.verify.numbers import points, show


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
