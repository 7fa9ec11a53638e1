"""How much more evidence would decide an open cell, were the measured proportions to stay."""

from __future__ import annotations

from collections.abc import Callable

MOST = 10**9


def smallest(decided: Callable[[float], bool], start: float, share: float = 0.05) -> float | None:
    """Smallest size from ``start`` on at which ``decided``, to within ``share`` of it.

    Args:
        decided: Turns true at some size and stays so.
        start: A size at which it is false.
        share: Precision; a planning figure needs no more.

    Returns:
        The size, or None when nothing up to a billion decides.
    """
    low = high = float(start)
    while not decided(high):
        low, high = high, high * 2
        if high > MOST:
            return None
    while high - low > max(1.0, share * high):
        middle = (low + high) / 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high
