"""One bracketing root finder for score intervals and their p-values."""

from __future__ import annotations

from collections.abc import Callable


def root(f: Callable[[float], float], low: float, high: float, tolerance: float = 1e-13) -> float:
    """Zero of a monotone ``f`` between ``low`` and ``high`` (Illinois variant of regula falsi).

    When ``f`` has one sign throughout, the end nearer to zero is returned: an interval limit that
    would lie outside the parameter space stops at its edge.
    """
    at_low, at_high = f(low), f(high)
    if at_low == 0.0:
        return low
    if at_high == 0.0:
        return high
    if (at_low > 0) == (at_high > 0):
        return low if abs(at_low) < abs(at_high) else high
    side = 0
    for _ in range(200):
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        if not low < middle < high:
            middle = (low + high) / 2
        at_middle = f(middle)
        if at_middle == 0.0:
            return middle
        if (at_middle > 0) == (at_high > 0):
            high, at_high = middle, at_middle
            if side == 1:
                at_low /= 2
            side = 1
        else:
            low, at_low = middle, at_middle
            if side == -1:
                at_high /= 2
            side = -1
        if high - low <= tolerance:
            break
    return (low + high) / 2
