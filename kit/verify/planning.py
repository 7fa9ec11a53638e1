"""How much more evidence would decide an open cell, were the measured proportions to stay."""

from __future__ import annotations

from collections.abc import Callable

from kit.verify.finding import inside
from kit.verify.seeds import Spread

MOST = 10**9
_MOST_SEEDS = 10_000


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


def needed_seeds(
    trial: Callable[[int, int], Spread],
    sizes: tuple[int, int],
    gap: float,
    margin: float,
    blur: float,
) -> str:
    """How many seeds here, or else on both sides, would decide.

    Args:
        trial: Spread of the difference with this many seeds here and there.
        sizes: How many there are now, here and there.
        gap: Size of the difference.
        margin: Half-width of what counts as equal.
        blur: Printed precision.
    """

    def decided(count: int, k: int) -> bool:
        spread = trial(count, k)
        narrow = spread.interval(gap, 0.90, blur)
        return inside(narrow, margin) or spread.interval(gap, 0.95, blur)[0] > 0

    for both in (False, True):
        count = sizes[0] + 1
        while count <= _MOST_SEEDS:
            if decided(count, max(sizes[1], count) if both else sizes[1]):
                return f"about {count} seeds{' on both sides' if both else ''}"
            count = max(count + 1, int(count * 1.15))
    return "no number of seeds decides: the difference is as large as the margin"
