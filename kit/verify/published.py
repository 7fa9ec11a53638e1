"""A document's own printed table, entered like a table from elsewhere.

What comes out says nothing about a reproduction. It says which of the document's sentences its own
numbers carry: a sentence that 208 prompts cannot decide in the original cannot be decided by
repeating it with 208 prompts either.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import msgspec
from msgspec.structs import replace

from kit.manifest.expectation_types import Expectation, ExpectedCell
from kit.manifest.load import load_expectation
from kit.manifest.printed import WHOLE, Printed, counts
from kit.results.types import Cell, Results
from kit.verify.core import Subject, verify
from kit.verify.tables import csv_table
from kit.verify.verdict import ClaimOutcome, Verdict

_OUTCOME: dict[ClaimOutcome, str] = {"undetermined": "is open", "fails": "is contradicted"}
PRINTED = frozenset({"reported", "quoted"})
"""Statuses of cells whose value stands in a document."""


def printed_table(expected: Expectation) -> str:
    """The printed values as the CSV that ``kit verify EXP --results FILE`` reads."""
    return csv_table(
        {"cell": cell.id, "unit": cell.unit, "value": cell.value} | _items(cell)
        for cell in expected.cells
        if cell.value is not None and cell.status in PRINTED
    )


def _items(cell: ExpectedCell) -> dict[str, str]:
    """Count and items, as far as they are printed and possible (see the lint rule ``grim``)."""
    if cell.n is None or cell.value is None or cell.unit not in WHOLE:
        return {}
    if cell.k is not None:
        return {"value": "", "k": str(cell.k), "n": str(cell.n)}
    possible = counts(Printed.parse(cell.value), cell.n, WHOLE[cell.unit])
    return {"n": str(cell.n)} if possible else {}


def verdict_on_itself(path: Path) -> Verdict:
    """The verdict on a document's printed table.

    Args:
        path: Expectation file.

    Raises:
        InvalidInput: The expectation is not what it must be.
    """
    from kit.verify.basis import read_basis, verdict_of

    expected = load_expectation(path)
    with TemporaryDirectory() as folder:
        brought = Path(folder) / "printed.csv"
        brought.write_text(printed_table(expected), encoding="utf-8")
        basis = read_basis(expected.experiment, brought, expected.profile, expectation=path)
        return verdict_of(basis)


def not_carried(path: Path) -> str:
    """What a faithful repeat cannot show, because what it is compared with does not show it.

    Args:
        path: Expectation file.

    Returns:
        A sentence before anybody spends a GPU; empty where every primary claim over printed numbers
        holds, or over the committed reference runs where no document prints any.

    Raises:
        InvalidInput: The expectation is not what it must be, or its record.
    """
    expected = load_expectation(path)
    if any(cell.value is not None and cell.status == "reported" for cell in expected.cells):
        what, verdict = "the printed numbers themselves carry", verdict_on_itself(path)
    elif (reference := verdict_on_reference(path)) is not None:
        what, verdict = "the kit's own reference runs carry", reference
    else:
        return ""
    asked = [claim for claim in verdict.claims if claim.primary]
    asked = [claim for claim in asked if claim.outcome != "not-evaluated"]
    rest = [claim for claim in asked if claim.outcome != "holds"]
    if not rest:
        return ""
    listed = ", ".join(f"{claim.id} {_OUTCOME[claim.outcome]}" for claim in rest)
    return (
        f"of {len(asked)} primary claims {what} {len(asked) - len(rest)} ({listed}): "
        "a run that repeats them exactly is not REPRODUCED"
    )


def verdict_on_reference(path: Path) -> Verdict | None:
    """What the claims say of the committed reference runs; None where there are none.

    The cells are compared with themselves, so that only the claims mean something. Labels are not
    in a record: a claim that pairs items is decided without them.

    Args:
        path: Expectation file.

    Raises:
        InvalidInput: The expectation or its record is not what it must be.
    """
    expected = load_expectation(path)
    if not expected.record:
        return None
    results = Results(
        schema_version=1,
        experiment=expected.experiment,
        version=expected.version,
        profile=expected.profile,
        cells=list(recorded(path.parent / expected.record)),
    )
    return verify(Subject(expected=expected, results=results))


_FIELDS = ("id", "unit", "value", "k", "n", "seeds", "step", "not_run")


def recorded(record: Path) -> Iterator[Cell]:
    """The cells of all runs of a record, a cell's replicates put together."""
    cells: dict[str, Cell] = {}
    for line in record.read_bytes().splitlines():
        item = msgspec.json.decode(line)
        if "run" in item:
            continue
        cell = msgspec.convert({key: item[key] for key in _FIELDS if key in item}, Cell)
        seeds = [replace(seed, labels=None) for seed in cell.seeds]
        earlier = cells.get(cell.id)
        if earlier is not None and seeds and cell.not_run is None:
            seeds = [*earlier.seeds, *seeds]
            values = [seed.value for seed in seeds if seed.value is not None]
            cell = replace(cell, k=None, value=fmean(values) if values else None)
        cells[cell.id] = replace(cell, seeds=seeds)
    yield from cells.values()
