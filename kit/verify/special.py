"""Normal, t, binomial and beta distributions, from ``scipy.special`` loaded on first use.

``scipy.stats`` takes about a second to import, ``scipy.special`` a third of that, and a verdict
over exact and absolute cells needs neither.
"""

from __future__ import annotations

from functools import lru_cache
from math import erfc, sqrt
from statistics import NormalDist

_NORMAL = NormalDist()


@lru_cache(maxsize=1024)
def normal_quantile(p: float) -> float:
    """z with P(Z <= z) = p."""
    return _NORMAL.inv_cdf(p)


def normal_tail(z: float) -> float:
    """P(Z > z), accurate far out."""
    return 0.5 * erfc(z / sqrt(2.0))


@lru_cache(maxsize=4096)
def t_quantile(p: float, df: float) -> float:
    """t with P(T <= t) = p for ``df`` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, p))


def t_tail(t: float, df: float) -> float:
    """P(T > t) for ``df`` degrees of freedom; the normal tail when ``df`` is infinite."""
    if df == float("inf"):
        return normal_tail(t)
    from scipy.special import stdtr

    return float(stdtr(df, -t))


def binomial_at_most(k: float, n: int, p: float) -> float:
    """P(X <= k) for X ~ Binomial(n, p)."""
    if k < 0:
        return 0.0
    if k >= n:
        return 1.0
    from scipy.special import bdtr

    return float(bdtr(float(int(k)), n, p))


def binomial_at_least(k: float, n: int, p: float) -> float:
    """P(X >= k) for X ~ Binomial(n, p), without cancellation."""
    if k <= 0:
        return 1.0
    if k > n:
        return 0.0
    from scipy.special import bdtrc

    return float(bdtrc(float(int(k) - 1), n, p))


@lru_cache(maxsize=4096)
def beta_quantile(p: float, a: float, b: float) -> float:
    """x with P(X <= x) = p for X ~ Beta(a, b)."""
    from scipy.special import betaincinv

    return float(betaincinv(a, b, p))
