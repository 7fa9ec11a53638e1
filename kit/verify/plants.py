"""Deviations of known size, planted into a copy of a table.

Structural plants alter one cell the way tables really go wrong. Each takes the whole subject and
returns a copy with one cell altered, or None where the cell has nothing to alter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from msgspec import structs

from kit.results.labels import Labels, LabelTable
from kit.results.types import Cell, SeedValue
from kit.verify.core import Subject
from kit.verify.numbers import PROPORTIONS

Plant = Callable[[Subject, str], Subject | None]


def _cell(subject: Subject, id: str) -> Cell | None:
    return next((cell for cell in subject.results.cells if cell.id == id), None)


def _with(
    subject: Subject, cells: Sequence[Cell], lines: dict[str, Labels] | None = None
) -> Subject:
    """The subject with these cells in place of their namesakes."""
    changed = {cell.id: cell for cell in cells}
    table = [changed.get(cell.id, cell) for cell in subject.results.cells]
    labels = LabelTable(lines or {}, fallback=subject.labels)
    return replace(subject, results=structs.replace(subject.results, cells=table), labels=labels)


def wrong_n(subject: Subject, id: str) -> Subject | None:
    """One item fewer than the published number rests on, the labels shortened with it."""
    cell = _cell(subject, id)
    if cell is None or cell.not_run is not None:
        return None
    if cell.n is not None and cell.k is not None and not cell.seeds:
        k, n = min(cell.k, cell.n - 1), cell.n - 1
        value = _whole(cell) * k / n if n else None
        changed = structs.replace(cell, n=n, k=k, value=value, labels=None)
    elif cell.seeds and all(seed.n and seed.k is not None for seed in cell.seeds):
        seeds = [_shorter(cell, seed) for seed in cell.seeds]
        mean = sum(seed.value for seed in seeds) / len(seeds)
        changed = structs.replace(cell, seeds=seeds, value=mean, n=None, k=None)
    else:
        return None
    return _with(subject, [changed])


def _shorter(cell: Cell, seed: SeedValue) -> SeedValue:
    assert seed.n is not None
    assert seed.k is not None
    k, n = min(seed.k, seed.n - 1), seed.n - 1
    return structs.replace(seed, n=n, k=k, value=_whole(cell) * k / max(n, 1), labels=None)


def other_unit(subject: Subject, id: str) -> Subject | None:
    """Percent labelled as fraction or the reverse, the numbers left as they are."""
    cell = _cell(subject, id)
    if cell is None or cell.unit not in PROPORTIONS or not (cell.value or cell.seeds):
        return None
    unit = "fraction" if cell.unit == "percent" else "percent"
    return _with(subject, [structs.replace(cell, unit=unit)])


def swapped(subject: Subject, id: str) -> Subject | None:
    """Exchanged with the next row of the same unit that has another value."""
    cells = [cell for cell in subject.results.cells if cell.not_run is None]
    ids = [cell.id for cell in cells]
    cell = _cell(subject, id)
    if cell is None or id not in ids or cell.value is None:
        return None
    start = ids.index(id)
    listed = {expected.id for expected in subject.expected.cells}
    for other in cells[start + 1 :] + cells[:start]:
        if other.unit == cell.unit and other.value not in (None, cell.value):
            if other.id not in listed:
                continue
            here = structs.replace(other, id=cell.id)
            there = structs.replace(cell, id=other.id)
            return _with(subject, [here, there])
    return None


def duplicated_seed(subject: Subject, id: str) -> Subject | None:
    """The second seed is the first one once more."""
    cell = _cell(subject, id)
    if cell is None or len(cell.seeds) < 2 or cell.seeds[0].labels is None:
        return None
    first, second, *rest = cell.seeds
    seeds = [first, structs.replace(first, seed=second.seed), *rest]
    mean = sum(seed.value for seed in seeds) / len(seeds)
    return _with(subject, [structs.replace(cell, seeds=seeds, value=mean)])


def flipped(subject: Subject, id: str) -> Subject | None:
    """Success counted as failure: every label and every count turned round."""
    cell = _cell(subject, id)
    if cell is None or cell.unit not in PROPORTIONS or cell.not_run is not None:
        return None
    whole, lines = _whole(cell), {}

    def turned(reference: str | None) -> str | None:
        if reference is None:
            return None
        line = subject.labels.get(reference)
        name = f"{reference}!"
        lines[name] = structs.replace(line, labels=[1 - int(label) for label in line.labels])
        return name

    def other(k: int | None, n: int | None) -> int | None:
        return n - k if k is not None and n is not None else k

    seeds = [
        structs.replace(
            seed, value=whole - seed.value, k=other(seed.k, seed.n), labels=turned(seed.labels)
        )
        for seed in cell.seeds
    ]
    changed = structs.replace(
        cell,
        value=None if cell.value is None else whole - cell.value,
        k=other(cell.k, cell.n),
        labels=turned(cell.labels),
        seeds=seeds,
    )
    return _with(subject, [changed], lines)


def _whole(cell: Cell) -> float:
    return 100.0 if cell.unit == "percent" else 1.0


STRUCTURAL: dict[str, Plant] = {
    "wrong n": wrong_n,
    "percent as fraction": other_unit,
    "swapped rows": swapped,
    "duplicated seed": duplicated_seed,
    "flipped labels": flipped,
}
"""Name -> plant."""
