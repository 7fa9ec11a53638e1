"""Reference values out of the committed record of reference runs.

The record (JSON lines, written by ``kit reference``) has for each run a line about it and then a
line for each cell. A value a replicate; the replicates of all runs are put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import StatisticsError, fmean, stdev

import msgspec
from msgspec import Struct

from kit.errors import InvalidInput
from kit.manifest.expectation_types import ExpectedCell, Reference
from kit.manifest.printed import factor


class _Replicate(Struct):
    seed: str
    value: float | None = None
    labels: str | None = None


class _Line(Struct):
    run: str | None = None
    id: str | None = None
    unit: str = ""
    value: float | None = None
    labels: str | None = None
    seeds: list[_Replicate] = []
    not_run: str | None = None


@dataclass
class Measured:
    """What reference runs gave for a cell.

    Attributes:
        unit: As the runs wrote it.
        values: Replicate -> value, over all runs.
        labelled: Whether the runs kept labels of single items for it; the record holds none.
    """

    unit: str
    values: dict[str, float] = field(default_factory=dict)
    labelled: bool = False

    def in_unit(self, unit: str) -> dict[str, float]:
        """The values in the unit of the expectation."""
        times = float(factor(self.unit, unit) or 1)
        return {seed: times * value for seed, value in self.values.items()}


def read_record(path: Path) -> dict[str, Measured]:
    """Cell id -> its values.

    Raises:
        InvalidInput: The file is absent or damaged, or has a replicate of a cell twice.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"the record of reference runs cannot be read: {error.strerror or error}",
            where=str(path),
            next_step="name the file in 'record', or make it: kit reference",
        ) from None
    return measured(content, str(path))


def measured(content: bytes, where: str) -> dict[str, Measured]:
    """The same from the content of a record; ``where`` is for messages."""
    by_id: dict[str, Measured] = {}
    run = ""
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            item = msgspec.json.decode(line, type=_Line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(
                f"this line of the record of reference runs is damaged: {error}",
                where=f"{where}:{number}",
                next_step="bring it back from version control, or make it again: kit reference",
            ) from None
        run = item.run or run
        # A crossing that some replicate never came to has no mean to compare with.
        if item.id is None or item.value is None or item.not_run is not None:
            continue
        cell = by_id.setdefault(item.id, Measured(item.unit))
        mine = cell.values
        for replicate in item.seeds or [_Replicate(run, item.value, item.labels)]:
            cell.labelled |= replicate.labels is not None
            if replicate.value is None:
                continue
            if replicate.seed in mine:
                raise InvalidInput(
                    f"cell {item.id}: seed {replicate.seed!r} is in two runs",
                    where=f"{where}:{number}",
                )
            mine[replicate.seed] = replicate.value
    return {id: cell for id, cell in by_id.items() if cell.values}


def reference(values: dict[str, float], record: str) -> Reference:
    """Mean, sample sd and values, as text of twelve significant digits."""
    numbers = list(values.values())
    return Reference(
        mean=_number(fmean(numbers)),
        sd=_number(_sd(numbers)),
        n_seeds=len(numbers),
        values=[_number(value) for value in numbers],
        seeds=list(values),
        record=record,
    )


def _sd(numbers: Sequence[float]) -> float:
    # Exactly 0 for equal values: their mean is exact here.
    try:
        return stdev(numbers)
    except StatisticsError:
        return 0.0


def _number(value: float) -> str:
    return f"{value:.12g}"


def with_references(cells: Sequence[ExpectedCell], folder: Path, record: str) -> list[ExpectedCell]:
    """The cells, each that stands in the record with its values as reference."""
    if not record:
        return list(cells)
    recorded = read_record(folder / record)
    return [
        msgspec.structs.replace(
            cell, reference=reference(recorded[cell.id].in_unit(cell.unit), record)
        )
        if cell.id in recorded
        else cell
        for cell in cells
    ]
