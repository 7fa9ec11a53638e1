"""Kinds that compare one run's items: ``binomial``, ``paired`` and ``flip``.

``binomial`` compares two proportions over their own items, by Newcombe's hybrid score interval.
With labels of each item on both sides (``paired``) the item-sampling noise cancels and only flips
remain. Where the published labels are not to be had, a pilot's flip rate says how much two honest
runs differ (``flip``).
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import ceil, floor, sqrt

from kit.manifest.printed import Printed
from kit.verify.finding import Finding, conclude, excludes_zero, inside, judged, scaled, with_needed
from kit.verify.numbers import points, rounded, scale_of, show, show_p
from kit.verify.pairs import (
    critical_difference,
    equivalence_difference,
    mcnemar,
    tango,
    tango_score,
    two_sided,
)
from kit.verify.planning import MOST, smallest
from kit.verify.proportions import Z90, Z95, Term, clopper_pearson, mover_score, newcombe
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


STANDOFF = "no number of items decides: the difference is as large as the margin"


def paired(
    b: int, c: int, n: int, margin: Fraction, allowed_flips: Fraction | None, unit: str
) -> Finding:
    """Equivalent: Tango's 90 % interval inside ``+-margin``. Different: exact McNemar p < 0.05.

    With an allowed flip rate f: equivalence also asks ``(b + c)/n <= f``, and a flip rate whose
    lower 95 % limit (Clopper-Pearson, one-sided) exceeds f is a difference even at net 0.

    Args:
        b: Items 1 here and 0 published.
        c: Items 0 here and 1 published.
        n: All items.
        margin: In the cell's unit.
        allowed_flips: Largest share of items that may change, or None.
        unit: percent or fraction.
    """
    scale = scale_of(unit)
    delta = float(margin / Fraction(scale))
    wide, narrow = tango(b, c, n, Z95), tango(b, c, n, Z90)
    p = mcnemar(b, c)
    flips = (b + c) / n
    few = allowed_flips is None or Fraction(b + c, n) <= allowed_flips
    many = not few and clopper_pearson(b + c, n, 0.90)[0] > float(allowed_flips or 0)
    equivalent = inside(narrow, delta) and few
    different = p < 0.05 or many
    verdict = conclude(b + c == 0, equivalent, different)
    half = (wide[1] - wide[0]) / 2 * scale
    detail = (
        f"{b} items only here and {c} only there of {n}: difference "
        f"{rounded((b - c) / n * scale, half, unit, signed=True)}{points(unit)}, "
        f"exact McNemar {show_p(p)}, flip rate {100 * flips:.1f} %"
    )
    if allowed_flips is not None:
        detail += f" (allowed {show(100 * allowed_flips)} %)"
    needed = None
    if verdict == "inconclusive":
        needed = _needed_paired(b / n, c / n, delta, n) if few else "a larger sample of flips"
    return Finding(
        verdict,
        detail + f", margin {show(margin)}",
        difference=(b - c) / n * scale,
        interval=scaled(wide, 0.95, scale),
        interval_equivalence=scaled(narrow, 0.90, scale),
        margin=float(margin),
        shifted=verdict == "reproduced" and different,
        flip_rate=flips,
        p=p,
        needed=needed,
    )


def _needed_paired(b: float, c: float, margin: float, n: int) -> str:
    def decided(items: float) -> bool:
        narrow = tango(b * items, c * items, items, Z90)
        return inside(narrow, margin) or abs(tango_score(b * items, c * items, items, 0)) > Z95

    items = smallest(decided, n)
    if items is None:
        return STANDOFF
    return f"about {ceil(items):,} items with labels on both sides"


def flip(
    k: int,
    n: int,
    published: Printed,
    count: Fraction,
    blur: Fraction,
    margin: Fraction,
    rate: Fraction,
    unit: str,
) -> Finding:
    """The difference against what flips of a pilot's rate produce.

    Under "no difference" the net count is a sum of ``n`` steps of +1, -1 (each with probability
    f/2) or 0; its exact distribution replaces ``1.96 sqrt(f/n)``, which is badly off when f n is
    small. Under "shifted by the margin" ``margin * n`` further flips all go one way.

    Args:
        k: Count measured here.
        n: Items, the same on both sides.
        published: The printed proportion.
        count: Published count (fractional when the printed value leaves it open).
        blur: Half-width of that count due to printed precision.
        margin: In the cell's unit.
        rate: Share of items that flip between two honest runs, from a pilot.
        unit: percent or fraction.
    """
    scale = scale_of(unit)
    whole = Fraction(100 if unit == "percent" else 1)
    gap = whole * Fraction(k, n) - published.value
    net = k - count
    delta, f = float(margin / whole), float(rate)
    critical = critical_difference(n, f)
    allowed = equivalence_difference(n, f, delta)
    least = max(0, ceil(abs(net) - blur))  # the true net count is a whole number
    different = least >= critical
    equivalent = allowed is not None and abs(net) + blur <= allowed
    verdict = conclude(abs(gap) <= published.half, equivalent, different)
    centre, half = float(net) / n, (critical - 1 + float(blur)) / n
    room = delta - (allowed / n if allowed is not None else -1 / n) + float(blur) / n
    apart = rounded(gap, half * scale, unit, signed=True)
    detail = (
        f"difference {apart}{points(unit)} = {show(net, signed=True)} items; "
        f"a flip rate of {show(100 * f)} % explains up to {critical - 1} of {n}, "
        f"margin {show(margin)}"
    )
    needed = None
    if verdict == "inconclusive":
        needed = _needed_flip(abs(centre), f, delta, n)
    return Finding(
        verdict,
        detail,
        difference=float(gap),
        interval=scaled((centre - half, centre + half), 0.95, scale),
        interval_equivalence=scaled((centre - room, centre + room), 0.90, scale),
        margin=float(margin),
        shifted=verdict == "reproduced" and different,
        p=two_sided(n, f, least),
        needed=needed,
    )


@lru_cache(maxsize=65536)
def _needed_flip(gap: float, f: float, margin: float, n: int) -> str:
    """Normal approximation is enough for a planning figure."""

    def decided(items: float) -> bool:
        spread = sqrt((f + margin) / items)
        return gap + Z90 * spread < margin or gap > Z95 * sqrt(f / items)

    items = smallest(decided, n)
    if items is None:
        return STANDOFF
    return f"about {ceil(items):,} items on both sides, or labels of each item (paired)"
