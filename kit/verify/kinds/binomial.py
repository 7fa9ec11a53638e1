"""``binomial``: two proportions over their own items, by Newcombe's hybrid score interval."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import ceil, floor

from kit.manifest.printed import Printed
from kit.verify.finding import Finding, excludes_zero, inside, judged, with_needed
from kit.verify.numbers import scale_of
from kit.verify.planning import MOST, smallest
from kit.verify.proportions import Z90, Z95, Term, mover_score, newcombe
from kit.verify.special import normal_tail


def published_range(
    published: Printed, n: int, unit: str, count: int | None
) -> tuple[float, float]:
    """Smallest and largest proportion the printed value can stand for.

    A printed count, or a printed value that only one count of ``n`` rounds to, is exact; else the
    printed precision stays as half a unit each way.

    >>> from kit.verify.numbers import printed
    >>> published_range(printed("4.8"), 208, "percent", None) == (10 / 208, 10 / 208)
    True
    """
    if count is not None:
        return count / n, count / n
    whole = 100 if unit == "percent" else 1
    low = max((published.value - published.half) / whole, Fraction(0))
    high = min((published.value + published.half) / whole, Fraction(1))
    first, last = ceil(low * n), floor(high * n)
    if first == last:
        return first / n, first / n
    return float(low), float(high)


def hull(p: float, n: float, q: tuple[float, float], m: float, z: float) -> tuple[float, float]:
    """Newcombe's interval of ``p - q``, over every published proportion ``q`` may stand for."""
    if q[0] == q[1]:
        return newcombe(p, n, q[0], m, z)
    low = newcombe(p, n, q[1], m, z)[0]
    high = newcombe(p, n, q[0], m, z)[1]
    return low, high


def two_sided_p(p: float, n: float, q: tuple[float, float], m: float) -> float:
    """Newcombe's interval inverted to a test, at the least extreme published proportion."""
    if q[0] <= p <= q[1]:
        return 1.0
    nearest = q[1] if p > q[1] else q[0]
    return min(1.0, 2 * normal_tail(abs(mover_score((Term(1, p, n), Term(-1, nearest, m)), 0.0))))


def binomial(
    k: int, n: int, published: Printed, margin: Fraction, unit: str, m: int, count: int | None
) -> Finding:
    """Equivalent: 90 % interval inside ``+-margin``. Different: 95 % interval excludes 0.

    Args:
        k: Count measured here.
        n: Items measured here.
        published: The printed proportion.
        margin: In the cell's unit.
        unit: percent or fraction.
        m: Items behind the published proportion.
        count: Published count, where the document prints it.
    """
    scale = scale_of(unit)
    p, q = k / n, published_range(published, m, unit, count)
    whole = Fraction(100 if unit == "percent" else 1)
    gap = whole * Fraction(k, n) - published.value
    identical = abs(gap) <= published.half and (count is None or count * n == k * m)
    delta = float(margin / whole)
    finding = judged(
        identical=identical,
        difference=float(gap / whole),
        wide=hull(p, n, q, m, Z95),
        narrow=hull(p, n, q, m, Z90),
        margin=delta,
        p=two_sided_p(p, n, q, m),
        unit=unit,
        scale=scale,
        how="score interval",
    )
    if finding.verdict != "inconclusive":
        return finding
    return with_needed(finding, needed_items(p, q, delta, n))


@lru_cache(maxsize=65536)
def needed_items(p: float, q: tuple[float, float], margin: float, n: int) -> str:
    """How many items on both sides would decide, were the proportions to stay as they are."""

    def decided(items: float) -> bool:
        return inside(hull(p, items, q, items, Z90), margin) or excludes_zero(
            hull(p, items, q, items, Z95)
        )

    items = smallest(decided, n)
    if items is None:
        return f"more than {MOST:,} items: the printed precision is as wide as the question"
    return f"about {ceil(items):,} items on both sides, or labels of each item (paired)"
