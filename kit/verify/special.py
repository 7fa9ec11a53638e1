"""Distribution functions of ``scipy.special`` by their everyday names, and a root finder.

``scipy.stats`` takes two seconds to import, these functions a third of that; commands that compute
nothing start without either.
"""

from __future__ import annotations

from collections.abc import Callable


def normal_quantile(p: float) -> float:
    """z with P(Z <= z) = p."""
    from scipy.special import ndtri

    return float(ndtri(p))


def normal_tail(z: float) -> float:
    """P(Z > z), accurate far out."""
    from scipy.special import ndtr

    return float(ndtr(-z))


def t_quantile(p: float, df: float) -> float:
    """t with P(T <= t) = p for ``df`` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, p))


def t_tail(t: float, df: float) -> float:
    """P(T > t) for ``df`` degrees of freedom, which may be infinite."""
    from scipy.special import stdtr

    return float(stdtr(df, -t))


def binomial_at_most(k: float, n: int, p: float) -> float:
    """P(X <= k) for X ~ Binomial(n, p)."""
    from scipy.special import bdtr

    return 0.0 if k < 0 else 1.0 if k >= n else float(bdtr(float(int(k)), n, p))


def binomial_at_least(k: float, n: int, p: float) -> float:
    """P(X >= k) for X ~ Binomial(n, p), without cancellation."""
    from scipy.special import bdtrc

    return 1.0 if k <= 0 else 0.0 if k > n else float(bdtrc(float(int(k) - 1), n, p))


def beta_quantile(p: float, a: float, b: float) -> float:
    """x with P(X <= x) = p for X ~ Beta(a, b)."""
    from scipy.special import betaincinv

    return float(betaincinv(a, b, p))


def root(f: Callable[[float], float], low: float, high: float, tolerance: float = 1e-13) -> float:
    """Zero of a monotone ``f`` between ``low`` and ``high`` (Brent).

    When ``f`` has one sign throughout, the end nearer to zero is returned: an interval limit that
    would lie outside the parameter space stops at its edge.
    """
    from scipy.optimize import brentq

    at_low, at_high = f(low), f(high)
    if (at_low > 0) == (at_high > 0):
        return low if abs(at_low) < abs(at_high) else high
    return float(brentq(f, low, high, xtol=tolerance))
