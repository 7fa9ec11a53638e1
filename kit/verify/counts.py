"""Counts behind the rounded percentages of a table from elsewhere.

A paper prints 1.9 % of 208 items and means 4 of 208. Tests of proportions need the 4.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TypeVar

from msgspec import structs

from kit.errors import InvalidInput, KitError, raise_all
from kit.manifest.grim import WHOLE, counts, nearest_shares
from kit.manifest.printed import Printed
from kit.results.types import Cell, Results, SeedValue
from kit.verify.numbers import show, some

_Entry = TypeVar("_Entry", Cell, SeedValue)

_COMPUTED = Fraction(1, 10**12)
"""A float such as ``100 * 1 / 7`` is off by its last binary digit, which may be more than half a
unit of its last decimal one; as a share of the whole."""


def with_counts(results: Results, where: str) -> tuple[Results, list[str]]:
    """The table with k wherever only a proportion and n were given.

    Where several counts round to the number (many items, few digits) the nearest is taken, and a
    note says so. A float has lost its trailing zeros: 67.0 is taken for 67. Counts that are there
    are left alone.

    Args:
        results: As it was brought.
        where: Its file, for messages.

    Returns:
        The table, and notes for the verdict.

    Raises:
        InvalidInput: (or ``Many``) No count of n items gives the number.
    """
    problems: list[KitError] = []
    vague: list[str] = []
    cells = []
    for cell in results.cells:
        here = f"{where}: cell {cell.id}"
        try:
            seeds = [
                _filled(seed, cell.unit, f"{here}: seed {seed.seed}", cell.id, vague)
                for seed in cell.seeds
            ]
            whole = cell if seeds else _filled(cell, cell.unit, here, cell.id, vague)
            mean = sum(seed.value for seed in seeds) / len(seeds) if seeds else whole.value
            cells.append(structs.replace(whole, seeds=seeds, value=mean if seeds else whole.value))
        except InvalidInput as problem:
            problems.append(problem)
    raise_all(problems)
    return structs.replace(results, cells=cells), _notes(list(dict.fromkeys(vague)))


def _filled(entry: _Entry, unit: str, where: str, id: str, vague: list[str]) -> _Entry:
    value, n = entry.value, entry.n
    if value is None or n is None or n < 1 or entry.k is not None or unit not in WHOLE:
        return entry
    whole = WHOLE[unit]
    try:
        said = Printed.parse(repr(float(value)).removesuffix(".0"))
    except ValueError:
        return entry  # NaN or infinite: the measurement says so
    if not 0 <= said.value <= whole:
        raise InvalidInput(f"field 'value': {value!r} is no {unit}", where=where)
    said = replace(said, half=max(said.half, whole * _COMPUTED))
    possible = counts(said, n, whole)
    if not possible:
        near = ", ".join(f"{k}/{n} = {show(share)}" for k, share in nearest_shares(said, n, whole))
        raise InvalidInput(
            f"field 'value': no count of {n} items gives {value!r} {unit}",
            where=where,
            why=f"nearest are {near}",
            next_step="correct the value or n, or give k",
        )
    k = min(possible, key=lambda count: abs(Fraction(count * whole, n) - said.value))
    if len(possible) > 1 and Fraction(k * whole, n) != said.value:
        vague.append(id)
    return structs.replace(entry, k=k, value=float(Fraction(k * whole, n)))


def _notes(vague: list[str]) -> list[str]:
    words = "rounded values fit several counts; the nearest was taken"
    return [f"{len(vague)} {words}: {some(vague, 5)}"] if vague else []
