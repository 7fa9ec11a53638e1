"""Exact distribution of a net count of flips.

Each of ``n`` items steps up with probability ``up``, down with ``down``, and stays otherwise. The
number of steps is Binomial(n, up + down); given it, the ups are Binomial too. Summing over the
number of steps gives the net count's tail exactly, up to steps beyond 12 standard deviations.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, floor, sqrt
from typing import Any

from kit.verify.finding import ALPHA


def net_at_most(d: int, n: int, up: float, down: float) -> float:
    """P(ups - downs <= d)."""
    total = up + down
    if total <= 0:
        return 1.0 if d >= 0 else 0.0
    import numpy as np
    from scipy.special import bdtr, gammaln, xlog1py, xlogy

    steps: Any = _likely(n, min(total, 1.0))
    weight = np.exp(
        gammaln(n + 1)
        - gammaln(steps + 1)
        - gammaln(n - steps + 1)
        + xlogy(steps, min(total, 1.0))
        + xlog1py(n - steps, -min(total, 1.0))
    )
    # ups - downs <= d with ups + downs = t means ups <= (t + d) / 2
    ups = np.floor((steps + d) / 2)
    below = np.where(ups < 0, 0.0, bdtr(np.clip(ups, 0, steps), steps.astype(int), up / total))
    return float(min(1.0, np.sum(weight * below)))


def _likely(n: int, p: float) -> Any:
    import numpy as np

    reach = 12 * sqrt(n * p * (1 - p)) + 30
    return np.arange(max(0, floor(n * p - reach)), min(n, ceil(n * p + reach)) + 1, dtype=float)


@lru_cache(maxsize=65536)
def two_sided(n: int, f: float, d: int) -> float:
    """P(|net| >= d) when a share ``f`` of the items flips, either way equally likely."""
    return min(1.0, 2 * net_at_most(-d, n, f / 2, f / 2)) if d > 0 else 1.0


@lru_cache(maxsize=4096)
def critical_difference(n: int, f: float) -> int:
    """Smallest net count with ``P(|net| >= d) <= 0.05``."""
    low, high = 0, n + 1  # two_sided(low) > alpha >= two_sided(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if two_sided(n, f, middle) <= ALPHA else (middle, high)
    return high


@lru_cache(maxsize=4096)
def equivalence_difference(n: int, f: float, margin: float) -> int | None:
    """Largest net count that rejects "shifted by ``margin`` or more" at 5 %; None if none does.

    The shift is ``margin`` more items up, on top of a share ``f`` that flips either way.
    """
    f = min(f, max(0.0, 1.0 - margin))

    def rejected(d: int) -> bool:
        return net_at_most(d, n, f / 2 + margin, f / 2) <= ALPHA

    if margin <= 0 or not rejected(0):
        return None
    low, high = 0, n  # rejected(low); not rejected(high) unless every count is
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return low
