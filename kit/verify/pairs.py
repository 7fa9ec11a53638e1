"""Labels of the same items on two sides: exact McNemar, Tango's interval, net counts of flips.

``b`` counts items that are 1 here and 0 there, ``c`` the reverse; only these carry information
about the difference ``(b - c) / n``, which is why pairing decides where proportions cannot.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from math import ceil, floor, inf, sqrt
from typing import Any

from kit.results.labels import Labels
from kit.verify.finding import ALPHA
from kit.verify.special import binomial_at_least, normal_tail, root


class ItemsDiffer(ValueError):
    """Two label vectors are not over the same items."""


def discordance(here: Labels, there: Labels) -> tuple[int, int, int]:
    """``(b, c, n)``: items 1 here and 0 there, the reverse, and all; matched by item id.

    Without item ids on both sides position decides.

    Raises:
        ItemsDiffer: Other items, or other length.
    """
    other = _matched(here, there)
    b = sum(1 for x, y in zip(here.labels, other, strict=True) if x and not y)
    c = sum(1 for x, y in zip(here.labels, other, strict=True) if y and not x)
    return b, c, here.n


def _matched(here: Labels, there: Labels) -> list[int | bool]:
    if here.n != there.n:
        raise ItemsDiffer(f"{here.n} labels against {there.n}")
    if not here.items or not there.items or here.items == there.items:
        return there.labels
    by_item = dict(zip(there.items, there.labels, strict=True))
    unknown = [item for item in here.items if item not in by_item]
    if unknown:
        raise ItemsDiffer(f"{len(unknown)} of {here.n} items differ, first {unknown[0]!r}")
    return [by_item[item] for item in here.items]


def correlation(here: Labels, there: Labels) -> float:
    """Phi coefficient of two label vectors over the same items, 0 where one of them is constant.

    A positive one is corrected by half an item, as in Newcombe's paired interval (1998, Stat. Med.
    17, method 10), without which few common ones look surer than they are.

    Raises:
        ItemsDiffer: Other items, or other length.
    """
    n, k, m = here.n, here.k, there.k
    both = sum(1 for x, y in zip(here.labels, _matched(here, there), strict=True) if x and y)
    product: float = both * (n - k - m + both) - (k - both) * (m - both)
    product -= min(max(product, 0.0), n / 2)
    scale = k * (n - k) * m * (n - m)
    return product / sqrt(scale) if scale else 0.0


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p: ``2 P(X >= max(b, c))``, X ~ Binomial(b + c, 1/2), at most 1."""
    return min(1.0, 2 * binomial_at_least(max(b, c), b + c, 0.5))


def mcnemar_tails(b: int, c: int) -> tuple[float, float]:
    """Exact one-sided p-values of "more here" (b large) and "fewer here" (c large)."""
    return binomial_at_least(b, b + c, 0.5), binomial_at_least(c, b + c, 0.5)


def tango_score(b: float, c: float, n: float, at: float) -> float:
    """Tango's score statistic for the paired difference ``at`` (Tango 1998, Stat. Med. 17).

    ``(b - c - n at) / sqrt(n (2 q + at (1 - at)))`` with q, the probability of the (0, 1) pair,
    at its maximum likelihood under the constraint:
    ``q = (sqrt(B^2 - 4AC) - B) / 2A``, A = 2n, B = -b - c + (2n - b + c) at, C = -c at (1 - at).
    """
    if at < 0:  # the formula is for at >= 0; exchange the roles of the two sides
        return -tango_score(c, b, n, -at)
    a_ = 2.0 * n
    b_ = -b - c + (2 * n - b + c) * at
    c_ = -c * at * (1 - at)
    q = (sqrt(b_ * b_ - 4 * a_ * c_) - b_) / (2 * a_)
    variance = n * (2 * q + at * (1 - at))
    distance = b - c - n * at
    if variance <= 0:
        return 0.0 if distance == 0 else -inf  # every item would have to differ, or more than all
    return distance / sqrt(variance)


@lru_cache(maxsize=65536)
def tango(b: float, c: float, n: float, z: float) -> tuple[float, float]:
    """All differences that Tango's test does not reject at ``|score| <= z``."""
    d = (b - c) / n
    edge = 1 - 1e-12
    low = root(lambda at: tango_score(b, c, n, at) - z, -edge, d) if d > -edge else -1.0
    high = root(lambda at: tango_score(b, c, n, at) + z, d, edge) if d < edge else 1.0
    return low, high


def tango_tails(b: int, c: int, n: int, at: float) -> tuple[float, float]:
    """One-sided p-values of "difference above ``at``" and "below"; exact McNemar at 0."""
    if at == 0:
        return mcnemar_tails(b, c)
    z = tango_score(b, c, n, at)
    return normal_tail(z), normal_tail(-z)


def net_at_most(d: int, n: int, up: float, down: float) -> float:
    """P(ups - downs <= d) when each of n items steps up or down with these probabilities.

    The number of steps is Binomial(n, up + down); given it, the ups are Binomial too. Summed over
    the number of steps this is exact, up to steps beyond 12 standard deviations.
    """
    import numpy as np
    from scipy.special import bdtr, gammaln, xlog1py, xlogy

    total = up + down
    if total <= 0:
        return 1.0 if d >= 0 else 0.0
    share = min(total, 1.0)
    steps: Any = _likely(n, share)
    weight = np.exp(
        gammaln(n + 1)
        - gammaln(steps + 1)
        - gammaln(n - steps + 1)
        + xlogy(steps, share)
        + xlog1py(n - steps, -share)
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
    return min(1.0, 2 * net_at_most(-d, n, f / 2, f / 2))


@lru_cache(maxsize=4096)
def critical_difference(n: int, f: float) -> int:
    """Smallest net count with ``P(|net| >= d) <= 0.05``."""
    return 1 + bisect_left(range(1, n + 1), True, key=lambda d: two_sided(n, f, d) <= ALPHA)


@lru_cache(maxsize=4096)
def equivalence_difference(n: int, f: float, margin: float) -> int | None:
    """Largest net count that rejects "shifted by ``margin`` or more" at 5 %; None if none does.

    The shift is ``margin`` more items up, on top of a share ``f`` that flips either way.
    """
    f = min(f, max(0.0, 1.0 - margin))

    def rejected(d: int) -> bool:
        return net_at_most(d, n, f / 2 + margin, f / 2) <= ALPHA

    if not rejected(0):
        return None
    return bisect_left(range(1, n), True, key=lambda d: not rejected(d))
