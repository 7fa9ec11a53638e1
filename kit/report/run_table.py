"""The numbers of a run as one table, verified or not: a run of one's own manifest has them too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import stdev
from typing import Any

from kit.errors import UsageError
from kit.plural import plural
from kit.report.files import needing
from kit.results.labels import LabelFiles
from kit.results.run import open_run
from kit.results.types import Cell, SeedValue
from kit.verify.tables import csv_table
from kit.visible import visible


def read_cells(folder: Path, prefixes: Sequence[str] = ()) -> list[Cell]:
    """The cells of a run directory whose ids begin with one of the prefixes; all without any.

    Raises:
        InvalidInput: Not a run directory, or its results cannot be read.
        UsageError: A prefix that no cell has.
    """
    cells = open_run(folder).results.cells
    for prefix in prefixes:
        if not any(cell.id.startswith(prefix) for cell in cells):
            raise UsageError(
                f"no cell of this run begins with {prefix!r}",
                next_step=f"for example --cells {cells[0].id.rsplit('/', 1)[0]}/" if cells else "",
            )
    return [cell for cell in cells if not prefixes or cell.id.startswith(tuple(prefixes))]


def to_csv(cells: Iterable[Cell], labels: LabelFiles | None = None) -> str:
    """One line a number, a replicate a line: what ``kit verify EXP --results`` reads back.

    Nothing in it acts on a terminal. Curves are no numbers and stand in ``results.json`` only.

    Args:
        cells: Of a run.
        labels: Where per-item labels are; they are left out without.
    """
    return csv_table(_rows(cells, labels))


def _rows(cells: Iterable[Cell], labels: LabelFiles | None) -> Iterator[dict[str, Any]]:
    for cell in cells:
        head = {"cell": visible(cell.id), "unit": visible(cell.unit)}
        for seed in cell.seeds:
            yield head | {"seed": visible(seed.seed)} | _number(seed, labels)
        if not cell.seeds and cell.trajectory is None:
            yield head | {"not_run": visible(cell.not_run or "")} | _number(cell, labels)


def _number(of: Cell | SeedValue, labels: LabelFiles | None) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "value": "" if of.value is None else repr(of.value),
        "k": "" if of.k is None else of.k,
        "n": "" if of.n is None else of.n,
    }
    if labels is not None and of.labels is not None:
        columns["labels"] = "".join(str(bit) for bit in labels.get(of.labels).labels)
    return columns


def to_latex(cells: Iterable[Cell]) -> str:
    """One line a cell, as a LaTeX table with booktabs rules: mean, spread and what it is over.

    Raises:
        Preflight: A library is missing.
    """
    head = ["cell", "value", "unit", "sd", "of"]
    with needing("a LaTeX table"):
        import pandas as pd

        frame = pd.DataFrame(_summaries(cells), columns=head)
        return str(frame.to_latex(index=False, escape=True))


def _summaries(cells: Iterable[Cell]) -> Iterator[tuple[str, ...]]:
    for cell in cells:
        if cell.trajectory is not None:
            continue
        values = [seed.value for seed in cell.seeds]
        if values:
            spread = f"{stdev(values):.4g}" if len(values) > 1 else "-"
            of = plural(len(values), "seed")
        else:
            spread, of = "-", f"{cell.k} of {cell.n}" if cell.n is not None else "-"
        value = cell.not_run or ("-" if cell.value is None else f"{cell.value:.4g}")
        yield visible(cell.id), visible(value), visible(cell.unit), spread, of
