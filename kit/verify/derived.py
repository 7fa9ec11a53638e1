"""Cells that follow from other cells: computed from these and not taken on trust.

The expectation says how (:class:`kit.manifest.expectation_types.Derived`). A value that contradicts
its parts makes its cell ``invalid``; one that agrees is replaced by the exact one, on which
tolerances and claims then rest. A gap that 208 items each have opened and closed has the noise of
three rates, and at a true 0.86 a third of all runs measures less than 0.85.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import inf

from kit.manifest.derived import Undecidable, in_unit
from kit.manifest.expectation_types import Derived, Expectation, ExpectedCell
from kit.manifest.printed import Printed
from kit.verify.finding import Finding, judged
from kit.verify.measurement import AGREE, Measurement
from kit.verify.numbers import scale_of, show
from kit.verify.pairs import ItemsDiffer, correlation
from kit.verify.proportions import (
    UNBOUNDED,
    Z90,
    Z95,
    Correlation,
    Ratio,
    Term,
    ratio_difference,
)
from kit.verify.special import normal_tail, root

UNDEFINED = "undefined"


@dataclass(frozen=True)
class _Part:
    """What a formula is given: replicate -> value; under ``"*"`` what holds for each of them."""

    unit: str
    values: dict[str, Fraction]
    half: Fraction
    """How far a value in a table written by hand may be off because it was printed."""


def recomputed(
    expected: Expectation, measured: Mapping[str, Measurement], *, by_hand: bool
) -> tuple[dict[str, Measurement], dict[str, str]]:
    """The measurements with derived values computed anew, and what contradicts its parts.

    A cell of which a part was not measured stays as it is; a part that the document only quotes
    counts with its printed value.

    Args:
        expected: Says which cells are derived, and how.
        measured: By cell id, the parts among them.
        by_hand: The table was written by hand: its numbers are only known to their last digit, and
            one that agrees within it stays as it is.
    """
    now = dict(measured)
    wrong: dict[str, str] = {}
    cells = {cell.id: cell for cell in expected.cells}
    for cell in expected.cells:
        mine, rule = now.get(cell.id), cell.derived
        if rule is None or mine is None or mine.value is None:
            continue
        parts = [_part(id, now, cells) for id in rule.cells]
        stated = {seed.id: seed.value for seed in mine.seeds} or {"": mine.value}
        spans = {name: _span(rule, cell, parts, name, by_hand) for name in stated}
        for name, value in stated.items():
            span, half = spans[name], _half(value) if by_hand else Fraction(0)
            if isinstance(span, str):
                continue
            allowed = half + AGREE * max(abs(span[1]), Fraction(scale_of(cell.unit)))
            if not span[0] - allowed <= value <= span[1] + allowed:
                wrong[cell.id] = (
                    f"{show(value)}{f' of {name}' if name else ''} contradicts its parts: "
                    f"{rule.formula} of {', '.join(rule.cells)} is {show(span[0])}"
                )
        exact = {name: span[0] for name, span in spans.items() if not isinstance(span, str)}
        if not by_hand and cell.id not in wrong and exact.keys() == stated.keys():
            seeds = tuple(replace(seed, value=exact[seed.id]) for seed in mine.seeds)
            mean = sum(exact.values(), Fraction(0)) / len(exact)
            now[cell.id] = replace(mine, value=mean, seeds=seeds)
    return now, wrong


def undefined(
    cell: ExpectedCell, expected: Expectation, measured: Mapping[str, Measurement], name: str
) -> bool:
    """Whether a derived cell has no value in a replicate because its formula has none there."""
    if cell.derived is None:
        return False
    cells = {other.id: other for other in expected.cells}
    parts = [_part(id, measured, cells) for id in cell.derived.cells]
    return _span(cell.derived, cell, parts, name, False) == UNDEFINED


def _part(id: str, measured: Mapping[str, Measurement], cells: Mapping[str, ExpectedCell]) -> _Part:
    part, said = measured.get(id), cells.get(id)
    printed = Printed.parse(said.value) if said is not None and said.value is not None else None
    half = printed.half if printed is not None else Fraction(0)
    if part is not None and part.value is not None:
        return _Part(part.unit, {s.id: s.value for s in part.seeds} or {"": part.value}, half)
    if said is not None and said.status == "quoted" and printed is not None:
        return _Part(said.unit, {"*": printed.value}, half)
    return _Part("", {}, half)


def _span(
    rule: Derived, cell: ExpectedCell, parts: Sequence[_Part], name: str, by_hand: bool
) -> tuple[Fraction, Fraction] | str:
    """Smallest and largest value of a replicate, equal for exact parts; else why there is none."""
    inputs = []
    for part in parts:
        value = part.values.get(name, part.values.get("*"))
        if value is None:
            return "not measured"
        inputs.append((Printed("", value, part.half if by_hand else Fraction(0)), part.unit))
    try:
        return in_unit(rule.formula, inputs, cell.unit) or "not measured"
    except Undecidable:
        return UNDEFINED


def _half(value: Fraction) -> Fraction:
    return Printed.parse(repr(float(value))).half


WEIGHTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "gap_closed": ((1, -1, 0), (1, 0, -1)),
    "ratio": ((1, 0), (0, 1)),
}
"""Formula -> weights of its parts in the numerator and in the divisor."""


def with_ratios(
    expected: Expectation, measured: Mapping[str, Measurement]
) -> dict[str, Measurement]:
    """The measurements, each ratio measured once with the proportions behind it.

    A part that the document only quotes and no run measures counts with its printed value, which
    has no noise because it is the same on both sides.
    """
    cells = {cell.id: cell for cell in expected.cells}
    completed = dict(measured)
    for cell in expected.cells:
        mine, rule = completed.get(cell.id), cell.derived
        if rule is None or rule.formula not in WEIGHTS or mine is None or mine.seeds:
            continue
        parts = [completed.get(id) or _quoted(cells.get(id)) for id in rule.cells]
        known = [part for part in parts if part is not None and part.value is not None]
        if len(known) < len(parts) or any(part.seeds for part in known):
            continue
        if not any(part.proportion for part in known):
            continue
        printed = [_printed(cells.get(part.id), part) for part in known]
        there = [term for term in printed if term is not None]
        published = _ratio(rule.formula, there, None) if len(there) == len(known) else None
        here = _ratio(rule.formula, [_term(part) for part in known], _together(known))
        completed[cell.id] = replace(mine, ratio=here, published_ratio=published)
    return completed


def _quoted(cell: ExpectedCell | None) -> Measurement | None:
    if cell is None or cell.status != "quoted" or cell.value is None:
        return None
    return Measurement(cell.id, cell.unit, Fraction(cell.value), None, None, (), None, ())


def _term(part: Measurement) -> Term:
    items = part.n if part.proportion and part.n is not None else inf
    return Term(1, float(part.value or 0) / scale_of(part.unit), items)


def _printed(cell: ExpectedCell | None, part: Measurement) -> Term | None:
    if cell is None or cell.value is None:
        return None
    items = (cell.n or part.n or inf) if part.proportion else inf
    return Term(1, float(cell.value) / scale_of(cell.unit), items)


def _ratio(formula: str, terms: Sequence[Term], together: Correlation | None) -> Ratio:
    over, under = (
        tuple(term._replace(weight=w) for term, w in zip(terms, weights, strict=True))
        for weights in WEIGHTS[formula]
    )
    return Ratio(over, under, together)


def _together(parts: Sequence[Measurement]) -> Correlation | None:
    """Correlations of the labels; None where a proportion has none, or not of the same items."""
    lines = [part.read_labels() if part.proportion else None for part in parts]
    for part, line in zip(parts, lines, strict=True):
        if part.proportion and (line is None or not line.items):
            return None
    try:
        return tuple(tuple(correlation(x, y) if x and y else 0.0 for y in lines) for x in lines)
    except ItemsDiffer:
        return None


def ratio(cell: Measurement, published: Printed, margin: Fraction) -> Finding:
    """Equivalent: 90 % interval inside ``+-margin``. Different: 95 % interval excludes 0.

    Args:
        cell: A ratio with the proportions behind it.
        published: The printed ratio; the proportions printed with it give it its noise.
        margin: In the cell's unit.
    """
    assert cell.ratio is not None
    assert cell.value is not None
    scale = scale_of(cell.unit)
    at, half = float(published.value) / scale, float(published.half) / scale
    here, there = cell.ratio, cell.published_ratio

    def interval(z: float) -> tuple[float, float]:
        low, high = ratio_difference(here, there, at, z)
        return low - half, high + half

    wide, gap = interval(Z95), float(cell.value - published.value) / scale
    if max(map(abs, wide)) >= UNBOUNDED:
        return Finding("inconclusive", "the divisor may be 0", needed="more items on both sides")
    end = 0 if gap > 0 else 1
    excess = root(lambda z: interval(z)[end], 0.0, Z95 * 4, 1e-6) if abs(gap) > half else 0.0
    return judged(
        identical=abs(gap) <= half,
        difference=gap,
        wide=wide,
        narrow=interval(Z90),
        margin=float(margin) / scale,
        p=min(1.0, 2 * normal_tail(excess)),
        unit=cell.unit,
        scale=scale,
        how=here.how,
    )
