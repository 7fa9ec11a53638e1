"""Untrusted text (:mod:`kit.visible`) and printed numbers."""

from __future__ import annotations

import re

from kit.visible import visible

MINUS = "\u2212"

_DECIMALS = {"percent": 1, "fraction": 3, "count": 0, "loss": 4, "norm": 3, "ratio": 3}


def one_line(text: str) -> str:
    """``text`` without line breaks, for places that have one line."""
    return visible(" ".join(text.split()))


def decimals_of(published: str | None, unit: str) -> int:
    """How many decimals to print: those of the published string, else the unit's habit."""
    if published is not None and re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?", published):
        return len(published.partition(".")[2])
    return _DECIMALS.get(unit, 3)


def number(value: float | None, decimals: int, *, sign: bool = False) -> str:
    """``value`` with a typographic minus; a dash where there is none."""
    if value is None:
        return "\u2014"
    if value != 0 and (abs(value) >= 1e7 or (abs(value) < 0.5 * 10**-decimals and decimals >= 3)):
        printed = f"{value:+.2e}" if sign else f"{value:.2e}"
    else:
        printed = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    if not any("1" <= digit <= "9" for digit in printed.partition("e")[0]):
        printed = printed.lstrip("+-")  # no signed zero
    return printed.replace("-", MINUS)


def probability(value: float | None) -> str:
    """A p value as papers print it."""
    if value is None:
        return "\u2014"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_equals(value: float) -> str:
    """``p = 0.012`` or ``p < 0.001``."""
    shown = probability(value)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def unit_word(unit: str) -> str:
    """The unit in a caption."""
    return "" if unit == "number" else unit


def seconds_word(seconds: float | None) -> str:
    """A duration a reader can compare."""
    if seconds is None:
        return "\u2014"
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 99.5 else f"{minutes / 60:.1f} h"


def bytes_word(size: float | None) -> str:
    """A size in decimal units."""
    if size is None:
        return "\u2014"
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
