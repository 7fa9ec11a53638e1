"""Cells that follow from other cells, computed from these and not taken on trust.

The expectation says how (:class:`kit.manifest.expectation_types.Derived`). A value that contradicts
its parts makes its cell ``invalid``; one that agrees is replaced by the exact one, on which
tolerances and claims then rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from kit.manifest.derived import UNITLESS, Undecidable, interval
from kit.manifest.expectation_types import Derived, Expectation, ExpectedCell
from kit.manifest.printed import Printed
from kit.verify.measurement import AGREE, Measurement
from kit.verify.numbers import factor, scale_of, show

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
    unit = parts[0].unit if rule.formula in UNITLESS else cell.unit
    inputs = []
    for part in parts:
        value, ratio = part.values.get(name, part.values.get("*")), factor(part.unit, unit)
        if value is None or ratio is None:
            return "not measured"
        inputs.append(Printed("", value, part.half if by_hand else Fraction(0)).scaled(ratio))
    whole = Fraction(scale_of(cell.unit)) if rule.formula in UNITLESS else Fraction(1)
    try:
        low, high = interval(rule.formula, inputs)
    except Undecidable:
        return UNDEFINED
    return low * whole, high * whole


def _half(value: Fraction) -> Fraction:
    return Printed.parse(repr(float(value))).half
