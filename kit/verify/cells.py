"""One expected cell against one measurement: preconditions, then the named tolerance kind."""

from __future__ import annotations

from fractions import Fraction

from kit.errors import InvalidInput
from kit.manifest.expectation_types import ExpectedCell, Tolerance
from kit.results.asks import of_one_curve
from kit.results.labels import LabelSource
from kit.verify.finding import Finding, invalid
from kit.verify.kinds.binomial import binomial
from kit.verify.kinds.bounded import bound
from kit.verify.kinds.curve import trajectory
from kit.verify.kinds.never import never
from kit.verify.kinds.pairwise import flip, paired
from kit.verify.kinds.plain import absolute, exact, relative
from kit.verify.kinds.seeded import seeds
from kit.verify.measurement import Measurement
from kit.verify.numbers import PROPORTIONS, show
from kit.verify.pairs import ItemsDiffer, discordance
from kit.verify.ratios import ratio
from kit.verify.seeds import baseline

OF_ITEMS = frozenset({"binomial", "paired", "flip"})
"""Kinds that compare one run's items."""


def judge(
    expected: ExpectedCell, cell: Measurement, published: LabelSource | None, place: str
) -> Finding:
    """Compare a measured cell with its expectation.

    Args:
        expected: The expected cell; must have a tolerance and something to compare with.
        cell: The measurement, in the expectation's unit.
        published: Where published labels are read from.
        place: Expectation file and cell, for messages.

    Raises:
        InvalidInput: The expectation asks for something that it does not say how to do.
    """
    rule = expected.tolerance
    assert rule is not None
    broken = _precondition(expected, cell, rule)
    if broken:
        return invalid(broken)
    if rule.kind == "bound":
        if rule.side is None:
            raise InvalidInput("field 'tolerance.side' is missing", where=place)
        value = _need(rule.bound, "bound", place)
        if cell.censored:
            return never(cell, expected, rule)
        if len(cell.seeds) < 2 and of_one_curve(expected.id):
            return Finding(
                "inconclusive",
                f"{show(cell.value or 0)}: nothing says how this spreads over seeds",
                needed="at least 2 seeds",
            )
        return bound(cell, value, rule.side)
    if cell.censored:
        return never(cell, expected, rule)
    if rule.kind == "trajectory":
        drift = None if rule.drift is None else Fraction(rule.drift)
        return trajectory(cell, expected, _margin(rule, place), drift)
    if rule.kind == "seeds":
        return seeds(cell, expected, _margin(rule, place), place)
    if rule.kind in OF_ITEMS:
        return _items(expected, cell, rule, published, place)
    return _plain(expected, cell, rule, place)


def _plain(expected: ExpectedCell, cell: Measurement, rule: Tolerance, place: str) -> Finding:
    assert cell.value is not None
    said = baseline(expected)
    assert said is not None
    if rule.kind == "exact":
        if expected.k is not None and cell.k is not None and cell.k != expected.k:
            return Finding(
                "deviates",
                f"{cell.k} items against {expected.k}; exact equality asked",
                difference=float(cell.value - said.value),
                margin=0.0,
            )
        return exact(cell.value, said, expected.unit)
    margin = _margin(rule, place)
    if rule.kind == "absolute":
        return absolute(cell.value, said, margin, expected.unit)
    if expected.unit in PROPORTIONS:
        raise InvalidInput(
            "tolerance 'relative' is refused for proportions",
            where=place,
            why="5 % of an attack success rate of 0.5 % is a twentieth of one item of 208",
            next_step="use binomial, paired or absolute",
        )
    return relative(cell.value, said, margin, _need(rule.floor, "floor", place), expected.unit)


def _items(
    expected: ExpectedCell,
    cell: Measurement,
    rule: Tolerance,
    published: LabelSource | None,
    place: str,
) -> Finding:
    margin = _margin(rule, place)
    if rule.kind == "binomial" and cell.ratio is not None:
        said = baseline(expected)
        assert said is not None
        return ratio(cell, said, margin)
    if cell.k is None or cell.n is None or expected.unit not in PROPORTIONS:
        return invalid(f"tolerance {rule.kind!r} needs fields 'k' and 'n' of a proportion")
    if rule.kind == "paired":
        return _paired(expected, cell, rule, margin, published, place)
    said = baseline(expected)
    assert said is not None
    m = expected.n or cell.n
    whole = 100 if expected.unit == "percent" else 1
    if not 0 <= said.value <= whole or (expected.k or 0) > m:
        printed = "" if expected.k is None else f", {expected.k} of {m} items"
        raise InvalidInput(
            f"{said.text}{printed} is no share of items (0 to {whole} {expected.unit})", where=place
        )
    if rule.kind == "binomial":
        return binomial(cell.k, cell.n, said, margin, expected.unit, m, expected.k)
    count, blur = said.value * m / whole, said.half * m / whole
    if expected.k is not None:
        count, blur = Fraction(expected.k), Fraction(0)
    elif _only(count, blur) is not None:
        count, blur = Fraction(_only(count, blur) or 0), Fraction(0)
    rate = _need(rule.flip_rate, "flip_rate", place)
    return flip(cell.k, cell.n, said, count, blur, margin, rate, expected.unit)


def _only(count: Fraction, blur: Fraction) -> int | None:
    """The one whole number within ``count +- blur``, if there is exactly one."""
    first, last = -((blur - count) // 1), (count + blur) // 1
    return int(first) if first == last else None


def _paired(
    expected: ExpectedCell,
    cell: Measurement,
    rule: Tolerance,
    margin: Fraction,
    published: LabelSource | None,
    place: str,
) -> Finding:
    here = cell.read_labels()
    if here is None:
        return invalid("tolerance 'paired' needs field 'labels', the labels of each item")
    if expected.labels is None or published is None:
        raise InvalidInput("tolerance 'paired' needs published 'labels'", where=place)
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
            f"{len(cell.seeds)} seeds measured, and {rule.kind!r} compares one run: items and "
            "seeds are never pooled; the kind for seeds is 'seeds'"
        )
    if expected.n is None:
        return ""
    sizes = [(f" of seed {seed.id}", seed.n) for seed in cell.seeds] or [("", cell.n)]
    for whose, n in sizes:
        if n is not None and n != expected.n:
            return f"field 'n'{whose} is {n}, the published number rests on {expected.n} items"
    return ""


def _margin(rule: Tolerance, place: str) -> Fraction:
    return _need(rule.margin, "margin", place)


def _need(text: str | None, name: str, place: str) -> Fraction:
    if text is None:
        raise InvalidInput(
            f"field 'tolerance.{name}' is missing", where=place, next_step="kit validate"
        )
    number = Fraction(text)
    if number < 0 and name != "bound":
        raise InvalidInput(f"field 'tolerance.{name}' is negative", where=place)
    return number
