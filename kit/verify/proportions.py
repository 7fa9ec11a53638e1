"""Intervals of one proportion and of the difference of two independent ones.

Score intervals throughout: at 0 of n the interval ``p +- stderr`` has width 0 and says nothing.
Proportions are fractions here; a published one may stand for a fractional count, because the
printed value is rounded.
"""

from __future__ import annotations

from math import sqrt

from kit.verify.roots import root
from kit.verify.special import (
    beta_quantile,
    binomial_at_least,
    binomial_at_most,
    normal_quantile,
    normal_tail,
)

_FAR = 38.0
"""Beyond this normal score the tail probability is 0 in double precision."""


def wilson(p: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's score interval: all P with ``|p - P| <= z sqrt(P (1 - P) / n)``.

    Limits ``(p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)`` (Wilson 1927).
    """
    square = z * z / n
    centre = (p + square / 2) / (1 + square)
    half = z * sqrt(p * (1 - p) / n + square / (4 * n)) / (1 + square)
    # at the ends the limit is exactly 0 or 1, which rounding would miss
    return (centre - half if p > 0 else 0.0), (centre + half if p < 1 else 1.0)


def clopper_pearson(k: float, n: float, level: float) -> tuple[float, float]:
    """Central exact interval: beta quantiles at ``(1 -+ level) / 2`` (Clopper and Pearson 1934).

    One-sided 95 % limits are the ends of the 90 % interval.
    """
    tail = (1 - level) / 2
    low = 0.0 if k <= 0 else beta_quantile(tail, k, n - k + 1)
    high = 1.0 if k >= n else beta_quantile(1 - tail, k + 1, n - k)
    return low, high


def exact_tails(k: int, n: int, value: float) -> tuple[float, float]:
    """Exact binomial p-values of "below ``value``" and "above ``value``"."""
    return binomial_at_most(k, n, value), binomial_at_least(k, n, value)


def newcombe(
    p1: float, n1: float, p2: float, n2: float, z: float, weight: float = 1.0
) -> tuple[float, float]:
    """Newcombe's hybrid score interval of ``p1 - weight * p2``.

    ``d - sqrt((p1 - l1)^2 + w^2 (u2 - p2)^2)`` to ``d + sqrt((u1 - p1)^2 + w^2 (p2 - l2)^2)`` with
    Wilson limits l, u (Newcombe 1998, method 10; with a weight: MOVER, Zou and Donner 2008).
    """
    l1, u1 = wilson(p1, n1, z)
    l2, u2 = wilson(p2, n2, z)
    d = p1 - weight * p2
    return (
        d - sqrt((p1 - l1) ** 2 + (weight * (u2 - p2)) ** 2),
        d + sqrt((u1 - p1) ** 2 + (weight * (p2 - l2)) ** 2),
    )


def newcombe_score(
    p1: float, n1: float, p2: float, n2: float, at: float, weight: float = 1.0
) -> float:
    """Signed z at which Newcombe's interval just reaches ``at``: its inversion to a test.

    Positive when ``p1 - weight * p2 > at``. ``2 * normal_tail(abs(z)) < 0.05`` exactly when the
    95 % interval excludes ``at``.
    """
    d = p1 - weight * p2
    if d == at:
        return 0.0
    end = 0 if d > at else 1
    sign = 1.0 if d > at else -1.0

    def gap(z: float) -> float:
        return newcombe(p1, n1, p2, n2, z, weight)[end] - at

    if (gap(_FAR) > 0) == (d > at):
        return sign * _FAR
    return sign * root(gap, 0.0, _FAR, 1e-11)


def newcombe_tails(
    p1: float, n1: float, p2: float, n2: float, at: float, weight: float = 1.0
) -> tuple[float, float]:
    """One-sided p-values of "the contrast is above ``at``" and "below ``at``"."""
    z = newcombe_score(p1, n1, p2, n2, at, weight)
    return normal_tail(z), normal_tail(-z)


def shrunk_sd(p: float, n: float) -> float:
    """Item-sampling sd of one proportion, never 0: ``sqrt(q (1-q) / n)``, q = (np + 2)/(n + 4).

    Stands in where seeds show no spread at all, typically at 0 of n (Agresti and Coull 1998).
    """
    q = (n * p + 2) / (n + 4)
    return sqrt(q * (1 - q) / n)


Z95 = normal_quantile(0.975)
Z90 = normal_quantile(0.95)
