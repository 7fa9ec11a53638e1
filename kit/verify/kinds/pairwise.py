"""``paired`` and ``flip``: the same items on both sides.

With labels of each item the item-sampling noise cancels and only flips remain. Where the
published labels are not to be had, a pilot's flip rate says how much two honest runs differ.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import ceil, sqrt

from kit.manifest.printed import Printed
from kit.verify.finding import Finding, conclude, inside, scaled
from kit.verify.numbers import points, rounded, scale_of, show, show_p
from kit.verify.pairs import (
    critical_difference,
    equivalence_difference,
    mcnemar,
    tango,
    tango_score,
    two_sided,
)
from kit.verify.planning import smallest
from kit.verify.proportions import Z90, Z95, clopper_pearson

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
