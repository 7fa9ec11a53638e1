"""Printed numbers, units, and exact comparison between them.

A published ``"1.9"`` stands for every value that rounds to it: half a unit of the last digit, here
0.05, enters every comparison. Comparison is done in rationals, so that a boundary is a boundary
and percent against fraction never costs a floating-point digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import floor, isfinite, log10

from kit.manifest.printed import WHOLE, Printed

PROPORTIONS = WHOLE.keys()

_LEAST = {"percent": 1, "fraction": 2, "ratio": 2, "count": 0}
"""Unit -> decimals that are always printed."""


@lru_cache(maxsize=65536)
def printed(text: str, unit: str = "number") -> Printed:
    """Read a printed number; a count printed in full has no rounding.

    >>> printed("1.90").half
    Fraction(1, 200)
    >>> printed("208", "count").half
    Fraction(0, 1)
    >>> printed("5.1e4", "count").half
    Fraction(500, 1)
    """
    number = Printed.parse(text)
    whole = unit == "count" and text.lstrip("+-").isdigit()
    return Printed(text, number.value, Fraction(0)) if whole else number


def exact(value: float) -> Fraction:
    """The decimal a float was written as: ``0.1`` is one tenth.

    >>> exact(0.1)
    Fraction(1, 10)
    """
    return Fraction(repr(float(value)))


def scale_of(unit: str) -> float:
    """Size of the whole in this unit: 100 for percent, else 1."""
    return float(WHOLE.get(unit, 1))


def show(value: float | Fraction, signed: bool = False) -> str:
    """A number for a sentence: four significant digits, no exponent for everyday sizes.

    >>> show(4.8076923)
    '4.808'
    >>> show(0.5, signed=True)
    '+0.5'
    """
    number = float(value)
    if number == 0:
        return "0"
    text = f"{number:+.4g}" if signed else f"{number:.4g}"
    if "e" in text and 1e-6 <= abs(number) < 1e9:
        if "e-" in text:
            return f"{number:+.7f}".rstrip("0") if signed else f"{number:.7f}".rstrip("0")
        return f"{number:+,.0f}" if signed else f"{number:,.0f}"
    return text


def places(half: float, unit: str) -> int | None:
    """Decimals that a number supports: two significant digits of its uncertainty.

    Args:
        half: Half the width of its interval, in its unit.
        unit: Its unit.

    Returns:
        None where nothing is uncertain.

    >>> places(5.16, "percent"), places(0.031, "ratio"), places(0.0, "ratio")
    (1, 3, None)
    """
    if not isfinite(half) or half <= 0:
        return None
    return max(_LEAST.get(unit, 0), min(6, 1 - floor(log10(half))))


def rounded(value: float | Fraction, half: float, unit: str, signed: bool = False) -> str:
    """A number for a sentence, with the digits that its uncertainty supports.

    >>> rounded(-0.432692, 1.97, "percent", signed=True)
    '-0.4'
    """
    digits = places(half, unit)
    if digits is None:
        return show(value, signed)
    text = f"{float(value):+.{digits}f}" if signed else f"{float(value):.{digits}f}"
    return text if text.strip("+-0.") else text.lstrip("+-")  # no signed zero


def points(unit: str) -> str:
    """What a difference in this unit is called, with a leading space."""
    return {"percent": " points", "seconds": " s", "minutes": " min"}.get(unit, "")


def some(ids: Sequence[str], most: int = 3) -> str:
    """The first of several names, and how many more there are."""
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")


def show_p(p: float) -> str:
    """A p-value for a sentence.

    >>> show_p(0.01234), show_p(1e-9)
    ('p = 0.0123', 'p < 0.0001')
    """
    return f"p = {p:.3g}" if p >= 0.0001 else "p < 0.0001"
