"""GRIM: is a printed percentage attainable with n items?

For a printed value there must be a whole number k with round(100 k / n) equal to it. Rounding may
be half-up or half-even, and a decimal tie may have been decided either way by binary floats, so a
tie counts for both neighbours. With n = 208 only 21 % of one-decimal percentages are attainable,
which catches most slips of the pen.
"""

from __future__ import annotations

import math
from fractions import Fraction

from kit.manifest.printed import Printed

WHOLE = {"percent": 100, "fraction": 1}
"""Unit -> what all n items together are."""


def counts(printed: Printed, n: int, whole: int = 100) -> range:
    """Every k of 0..n whose share rounds to the printed value.

    Args:
        printed: The printed share.
        n: Items.
        whole: 100 for percent, 1 for fractions.
    """
    if n < 1:
        raise ValueError("n must be at least 1")
    first = max(0, math.ceil(printed.low * n / whole))
    last = min(n, math.floor(printed.high * n / whole))
    return range(first, last + 1)


def attainable(printed: Printed, n: int, whole: int = 100) -> bool:
    """Whether some count of n items gives the printed share."""
    return len(counts(printed, n, whole)) > 0


def nearest_shares(printed: Printed, n: int, whole: int = 100) -> list[tuple[int, Fraction]]:
    """The counts just below and above the printed value with their shares, for messages."""
    below = math.floor(printed.value * n / whole)
    return [(k, Fraction(k * whole, n)) for k in (below, below + 1) if 0 <= k <= n]
