"""One expected cell against one measurement: preconditions, then the named tolerance kind."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil, floor

from kit.errors import InvalidInput
from kit.manifest.expectation_types import ExpectedCell, Tolerance
from kit.manifest.printed import Printed
from kit.plural import plural
from kit.results.asks import of_single_curve
from kit.results.labels import LabelSource
from kit.verify.derived import ratio
from kit.verify.finding import Finding, invalid
from kit.verify.kinds.curve import trajectory
from kit.verify.kinds.items import binomial, flip, paired
from kit.verify.kinds.plain import absolute, bound, exact, never, relative
from kit.verify.kinds.seeded import seeds
from kit.verify.measurement import Measurement
from kit.verify.numbers import PROPORTIONS, show
from kit.verify.pairs import ItemsDiffer, discordance
from kit.verify.seeds import baseline

NEEDS: dict[str, tuple[str, ...]] = {
    "exact": (),
    "absolute": ("margin",),
    "relative": ("margin", "floor"),
    "binomial": ("margin",),
    "paired": ("margin",),
    "flip": ("margin", "flip_rate"),
    "seeds": ("margin",),
    "trajectory": ("margin",),
    "bound": ("bound", "side"),
}
"""Tolerance kind -> the fields it needs."""
OF_ITEMS = frozenset({"binomial", "paired", "flip"})
"""Kinds that compare one run's items."""


def judge(
    expected: ExpectedCell, cell: Measurement, published: LabelSource | None, where: str
) -> Finding:
    """Compare a measured cell with its expectation.

    Args:
        expected: The expected cell; must have a tolerance and something to compare with.
        cell: The measurement, in the expectation's unit.
        published: Where published labels are read from.
        where: Expectation file and cell, for messages.

    Raises:
        InvalidInput: The expectation asks for something that it does not say how to do.
    """
    rule = expected.tolerance
    assert rule is not None
    broken = _precondition(expected, cell, rule)
    if broken:
        return invalid(broken)
    given, said = _given(rule, where), baseline(expected)
    if cell.censored:
        return never(cell, expected, rule)
    if rule.kind == "bound":
        if len(cell.seeds) < 2 and of_single_curve(expected.id):
            return Finding(
                "inconclusive",
                f"{show(cell.value or 0)}: nothing says how this spreads over seeds",
                needed="at least 2 seeds",
            )
        return bound(cell, given["bound"], rule.side or "at_most")
    if rule.kind == "trajectory":
        drift = None if rule.drift is None else Fraction(rule.drift)
        return trajectory(cell, expected, given["margin"], drift)
    if rule.kind in OF_ITEMS:
        return _items(expected, cell, rule, given, said, published, where)
    assert said is not None
    if rule.kind == "seeds":
        return seeds(cell, expected, given["margin"], where)
    return _plain(expected, cell, rule, given, said, where)


def _plain(
    expected: ExpectedCell,
    cell: Measurement,
    rule: Tolerance,
    given: Mapping[str, Fraction],
    said: Printed,
    where: str,
) -> Finding:
    assert cell.value is not None
    if rule.kind == "exact":
        if expected.k is not None and cell.k is not None and cell.k != expected.k:
            return Finding(
                "deviates",
                f"{cell.k} items against {expected.k}; exact equality asked",
                difference=float(cell.value - said.value),
                margin=0.0,
            )
        return exact(cell.value, said, expected.unit)
    if rule.kind == "absolute":
        return absolute(cell.value, said, given["margin"], expected.unit)
    if expected.unit in PROPORTIONS:
        raise InvalidInput(
            "tolerance 'relative' is refused for proportions",
            where=where,
            why="5 % of an attack success rate of 0.5 % is a twentieth of one item of 208",
            next_step="use binomial, paired or absolute",
        )
    return relative(cell.value, said, given["margin"], given["floor"], expected.unit)


def _items(
    expected: ExpectedCell,
    cell: Measurement,
    rule: Tolerance,
    given: Mapping[str, Fraction],
    said: Printed | None,
    published: LabelSource | None,
    where: str,
) -> Finding:
    margin = given["margin"]
    if rule.kind == "binomial" and cell.ratio is not None and said is not None:
        return ratio(cell, said, margin)
    if cell.k is None or cell.n is None or expected.unit not in PROPORTIONS:
        return invalid(f"tolerance {rule.kind!r} needs fields 'k' and 'n' of a proportion")
    if rule.kind == "paired":
        return _paired(expected, cell, rule, margin, published, where)
    assert said is not None
    m = expected.n or cell.n
    whole = 100 if expected.unit == "percent" else 1
    if not 0 <= said.value <= whole or (expected.k is not None and expected.k > m):
        printed = "" if expected.k is None else f", {expected.k} of {m} items"
        raise InvalidInput(
            f"{said.text}{printed} is no share of items (0 to {whole} {expected.unit})", where=where
        )
    if rule.kind == "binomial":
        return binomial(cell.k, cell.n, said, margin, expected.unit, m, expected.k)
    count, blur = said.value * m / whole, said.half * m / whole
    exactly = _only(count, blur) if expected.k is None else expected.k
    if exactly is not None:
        count, blur = Fraction(exactly), Fraction(0)
    return flip(cell.k, cell.n, said, count, blur, margin, given["flip_rate"], expected.unit)


def _only(count: Fraction, blur: Fraction) -> int | None:
    """The one whole number within ``count +- blur``, if there is exactly one."""
    first, last = ceil(count - blur), floor(count + blur)
    return first if first == last else None


def _paired(
    expected: ExpectedCell,
    cell: Measurement,
    rule: Tolerance,
    margin: Fraction,
    published: LabelSource | None,
    where: str,
) -> Finding:
    here = cell.read_labels()
    if here is None:
        return invalid("tolerance 'paired' needs field 'labels', the labels of each item")
    if expected.labels is None or published is None:
        raise InvalidInput("tolerance 'paired' needs published 'labels'", where=where)
    try:
        b, c, n = discordance(here, published.get(expected.labels))
    except ItemsDiffer as error:
        return invalid(f"not the published items: {error}")
    flips = None if rule.flip_rate is None else Fraction(rule.flip_rate)
    return paired(b, c, n, margin, flips, expected.unit)


def _precondition(expected: ExpectedCell, cell: Measurement, rule: Tolerance) -> str:
    """What makes a comparison meaningless before it starts; empty when nothing does."""
    if rule.kind in OF_ITEMS and cell.seeds:
        return (
            f"{plural(len(cell.seeds), 'seed')} measured, and {rule.kind!r} compares one run: "
            "items and seeds are never pooled; the kind for seeds is 'seeds'"
        )
    if expected.n is None:
        return ""
    sizes = [(f" of seed {seed.id}", seed.n) for seed in cell.seeds] or [("", cell.n)]
    for whose, n in sizes:
        if n is not None and n != expected.n:
            return f"field 'n'{whose} is {n}, the published number rests on {expected.n} items"
    return ""


def _given(rule: Tolerance, where: str) -> dict[str, Fraction]:
    """The numbers that a kind needs.

    Raises:
        InvalidInput: One is missing, or negative.
    """
    numbers = {}
    for name in NEEDS[rule.kind]:
        text = getattr(rule, name)
        if text is None:
            raise InvalidInput(
                f"field 'tolerance.{name}' is missing", where=where, next_step="kit validate"
            )
        if name != "side":
            numbers[name] = Fraction(text)
            if numbers[name] < 0 and name != "bound":
                raise InvalidInput(f"field 'tolerance.{name}' is negative", where=where)
    return numbers
