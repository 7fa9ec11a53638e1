"""Intervals of one proportion and of the difference of two independent ones.

Score intervals throughout: at 0 of n the interval ``p +- stderr`` has width 0 and says nothing.
Proportions are fractions here; a published one may stand for a fractional count, because the
printed value is rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, inf, sqrt
from statistics import NormalDist
from typing import NamedTuple

from kit.verify.special import (
    beta_quantile,
    binomial_at_least,
    binomial_at_most,
    normal_tail,
    root,
)

FAR = 38.0
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


class Term(NamedTuple):
    """One proportion of a weighted sum."""

    weight: float
    p: float
    n: float
    """Items; infinite where the proportion is known."""


Correlation = tuple[tuple[float, ...], ...]
"""[terms, terms]: between the labels of the terms' items; 1 on the diagonal."""


def mover(
    terms: Sequence[Term], z: float, together: Correlation | None = None
) -> tuple[float, float]:
    """Interval of ``sum w_i p_i`` from the Wilson interval of each proportion.

    "Method of variance estimates recovery" (Zou and Donner 2008, Stat. Med. 27, eq. 4 and 11): the
    distance from the sum to a limit is ``sqrt(sum_ij s_i s_j r_ij d_i d_j)``, d_i being how far
    term i can move towards that limit, s_i the sign of its weight and r_ij the correlation.

    Args:
        terms: The sum.
        z: Normal quantile of the level.
        together: Correlations; independent proportions when absent.
    """
    middle, reach = sum(term.weight * term.p for term in terms), []
    limits = [wilson(term.p, term.n, z) if term.n < inf else (term.p, term.p) for term in terms]
    for down in (True, False):
        moves = [
            term.weight * (term.p - limit[(term.weight > 0) != down])
            for term, limit in zip(terms, limits, strict=True)
        ]  # each away from the sum, with the sign that the term's own proportion moves in
        square = sum(move * move for move in moves)
        if together is not None:
            signed = [
                move * (1 if term.weight > 0 else -1)
                for move, term in zip(moves, terms, strict=True)
            ]
            square += 2 * sum(
                together[i][j] * signed[i] * signed[j] for i in range(len(terms)) for j in range(i)
            )
        reach.append(sqrt(max(square, 0.0)))
    return middle - reach[0], middle + reach[1]


def mover_score(terms: Sequence[Term], at: float, together: Correlation | None = None) -> float:
    """Signed z at which the interval just reaches ``at``: its inversion to a test.

    Positive when the sum is larger. ``2 * normal_tail(abs(z)) < 0.05`` exactly when the 95 %
    interval excludes ``at``.
    """
    middle = sum(term.weight * term.p for term in terms)
    if middle == at:
        return 0.0
    end, sign = (0, 1.0) if middle > at else (1, -1.0)

    def gap(z: float) -> float:
        return mover(terms, z, together)[end] - at

    if (gap(FAR) > 0) == (middle > at):
        return sign * FAR
    return sign * root(gap, 0.0, FAR, 1e-11)


def mover_tails(
    terms: Sequence[Term], at: float, together: Correlation | None = None
) -> tuple[float, float]:
    """One-sided p-values of "the sum is above ``at``" and "below ``at``"."""
    z = mover_score(terms, at, together)
    return normal_tail(z), normal_tail(-z)


def newcombe(p1: float, n1: float, p2: float, n2: float, z: float) -> tuple[float, float]:
    """Newcombe's hybrid score interval of ``p1 - p2`` (Newcombe 1998, method 10)."""
    return mover((Term(1, p1, n1), Term(-1, p2, n2)), z)


UNBOUNDED = 1e9
"""Stands for the limit of a ratio whose divisor may be 0."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of weighted sums of proportions, such as the closed share of a gap.

    ``N / D`` is above a value c when ``N - c D`` is above 0 and D is (Fieller 1954); both are asked
    of :func:`mover`. Fieller's own normal theory is no good here: at 4 of 208 it calls a true ratio
    larger than it is in 7 to 13 % of the samples where 5 % are asked.

    Attributes:
        over: The proportions with their weights in N.
        under: The same proportions with their weights in D.
        together: Correlations of their labels; None when they count as independent.
    """

    over: tuple[Term, ...]
    under: tuple[Term, ...]
    together: Correlation | None

    @property
    def value(self) -> float:
        """The ratio; infinite over 0."""
        over, under = (sum(t.weight * t.p for t in side) for side in (self.over, self.under))
        return over / under if under else inf

    @property
    def how(self) -> str:
        """Which interval, for sentences."""
        pairing = "proportions of the same items" if self.together else "independent proportions"
        return f"Fieller interval of {pairing}"

    def _less(self, times: float) -> list[Term]:
        """``N - times D``."""
        pairs = zip(self.over, self.under, strict=True)
        return [top._replace(weight=top.weight - times * under.weight) for top, under in pairs]

    def tails(self, at: float) -> tuple[float, float]:
        """One-sided p-values of "above ``at``" and "below"; each needs a divisor above 0."""
        above, below = mover_tails(self._less(at), 0.0, self.together)
        positive, _ = mover_tails(self.under, 0.0, self.together)
        return max(above, positive), max(below, positive)

    def interval(self, z: float) -> tuple[float, float]:
        """All ratios that the test at this normal quantile leaves standing."""
        if mover(self.under, z, self.together)[0] <= 0:
            return -UNBOUNDED, UNBOUNDED

        def limit(end: int) -> float:
            step = 2.0 * end - 1.0
            here = there = self.value
            while (mover(self._less(there), z, self.together)[end] < 0) == (end == 0):
                here, there, step = there, there + step, 2 * step
                if abs(step) > UNBOUNDED:
                    return there
            low, high = sorted((here, there))
            return root(lambda at: mover(self._less(at), z, self.together)[end], low, high, 1e-10)

        return limit(0), limit(1)


def ratio_difference(here: Ratio, there: Ratio | None, at: float, z: float) -> tuple[float, float]:
    """Interval of ``here - there``, of two tables; ``there`` is ``at`` exactly when None."""
    low, high = here.interval(z)
    other = there.interval(z) if there is not None else (at, at)
    gap = here.value - at
    return (
        gap - hypot(here.value - low, other[1] - at),
        gap + hypot(high - here.value, at - other[0]),
    )


def shrunk_sd(p: float, n: float) -> float:
    """Item-sampling sd of one proportion, never 0: ``sqrt(q (1-q) / n)``, q = (np + 2)/(n + 4).

    Stands in where seeds show no spread at all, typically at 0 of n (Agresti and Coull 1998).
    """
    q = (n * p + 2) / (n + 4)
    return sqrt(q * (1 - q) / n)


Z95 = NormalDist().inv_cdf(0.975)
Z90 = NormalDist().inv_cdf(0.95)
