"""Tables brought by an author or another lab: checked by the same rules, marked ``not run here``.

JSON is ``results.json`` itself or just its ``cells``. CSV has a header with ``cell`` and any of
``value, unit, k, n, seed, labels, not_run``; several rows of one cell with a ``seed`` each are its
replicates. ``labels`` is a string of 0 and 1, one an item, in the document's order of items.

Counts behind rounded percentages are filled in: a paper prints 1.9 % of 208 items and means 4 of
208, and tests of proportions need the 4.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import structs

from kit.errors import InvalidInput, KitError, raise_all
from kit.manifest.expectation_types import Expectation
from kit.manifest.printed import WHOLE, Printed, counts, nearest_shares
from kit.results.labels import LabelFiles, Labels, LabelSource, LabelTable
from kit.results.run import decode_results
from kit.results.types import Cell, Results, SeedValue
from kit.verify.numbers import show, some

_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][-+]?[0-9]{1,3})?")
"""Digits of other scripts, underscores and ``inf``, which Python would read, are slips here."""
COLUMNS = ("cell", "value", "unit", "k", "n", "seed", "labels", "not_run")


def csv_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """The CSV of rows that have some of the columns."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def template(expected: Expectation) -> str:
    """The empty table of an expectation, for results that are measured elsewhere.

    One row a cell that can be compared. Rows left empty count as missing. Repeat a row with another
    ``seed`` for each replicate. ``n`` is filled in where the published number rests on it.
    """
    return csv_table(
        {"cell": cell.id, "unit": cell.unit, "n": cell.n or ""}
        for cell in expected.cells
        if cell.tolerance is not None and cell.tolerance.kind != "trajectory"
    )


def read_table(path: Path, expected: Expectation) -> tuple[Results, LabelSource]:
    """A table and its labels.

    Args:
        path: JSON, or CSV by its suffix.
        expected: Fills in experiment, version and units that the table leaves out.

    Raises:
        InvalidInput: Not readable as a table; names the file and the line or field.
    """
    if not path.is_file():
        raise InvalidInput("no such file", where=str(path))
    if path.suffix == ".csv":
        return _read_csv(path, expected)
    raw = path.read_bytes()
    if raw.lstrip()[:1] == b"[":
        header = msgspec.json.encode(_header(expected))
        raw = header[:-1] + b',"cells":' + raw + b"}"
    try:
        return decode_results(raw, str(path)), LabelFiles(path.parent)
    except InvalidInput as error:  # whose advice is about a run of the kit
        raise InvalidInput(
            error.what,
            where=str(path),
            next_step="a table is CSV (its name ends in .csv) or JSON; kit show EXP --template "
            "writes an empty one",
        ) from None


def _header(expected: Expectation) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "experiment": expected.experiment,
        "version": expected.version,
        "profile": expected.profile,
    }


def _read_csv(path: Path, expected: Expectation) -> tuple[Results, LabelSource]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"not UTF-8: {error.reason}", where=str(path)) from None
    rows = csv.DictReader(io.StringIO(text), strict=True)
    units = {cell.id: cell.unit for cell in expected.cells}
    labels: dict[str, Labels] = {}
    grouped: dict[str, list[tuple[int, dict[str, str]]]] = {}
    try:
        names = rows.fieldnames or []
        unknown = [name for name in names if name not in COLUMNS]
        twice = [name for name in COLUMNS if names.count(name) > 1]
        if twice:
            raise InvalidInput(f"column {twice[0]!r} stands twice", where=f"{path}:1")
        if unknown or "cell" not in names:
            raise InvalidInput(
                f"unknown column {unknown[0]!r}" if unknown else "no column 'cell'",
                where=f"{path}:1",
                next_step=f"columns are {', '.join(COLUMNS)}; kit show EXP --template",
            )
        for row in rows:
            if None in row or None in row.values():
                raise InvalidInput(
                    "another number of fields than the header", where=f"{path}:{rows.line_num}"
                )
            clean = {name: (value or "").strip() for name, value in row.items()}
            if not clean["cell"]:
                raise InvalidInput("field 'cell' is empty", where=f"{path}:{rows.line_num}")
            grouped.setdefault(clean["cell"], []).append((rows.line_num, clean))
    except csv.Error as error:
        raise InvalidInput(f"not CSV: {error}", where=f"{path}:{rows.line_num}") from None
    cells = [_cell(id, rows, units, path, labels) for id, rows in grouped.items()]
    filled = [cell for cell in cells if cell is not None]
    results = Results(**_header(expected), cells=filled)
    return results, LabelTable(labels)


def _cell(
    id: str,
    rows: list[tuple[int, dict[str, str]]],
    units: Mapping[str, str],
    path: Path,
    labels: dict[str, Labels],
) -> Cell | None:
    """One cell from its rows; None for a row that was left empty."""
    line, first = rows[0]
    unit = first.get("unit") or units.get(id, "number")
    where = f"{path}:{line}"
    if first.get("not_run"):
        return Cell(id=id, unit=unit, not_run=first["not_run"])
    if len(rows) > 1 or first.get("seed"):
        return Cell(id=id, unit=unit, seeds=[_seed(id, unit, row, path, labels) for row in rows])
    value, k, n = _numbers(first, where)
    if value is None and k is None:
        return None
    return Cell(
        id=id, unit=unit, value=value, k=k, n=n, labels=_labels(id, "", first, where, labels)
    )


def _seed(
    id: str, unit: str, row: tuple[int, dict[str, str]], path: Path, labels: dict[str, Labels]
) -> SeedValue:
    line, fields = row
    where = f"{path}:{line}"
    if not fields.get("seed"):
        raise InvalidInput(f"field 'seed' is empty, and cell {id!r} has several rows", where=where)
    value, k, n = _numbers(fields, where)
    if value is None and k is not None and n:
        value = (100.0 if unit == "percent" else 1.0) * k / n
    if value is None:
        raise InvalidInput(f"neither 'value' nor 'k' and 'n' of cell {id!r}", where=where)
    return SeedValue(
        seed=fields["seed"],
        value=value,
        k=k,
        n=n,
        labels=_labels(id, fields["seed"], fields, where, labels),
    )


def _numbers(fields: Mapping[str, str], where: str) -> tuple[float | None, int | None, int | None]:
    def read(name: str, kind: type[float] | type[int]) -> Any:
        text = fields.get(name, "")
        if not text:
            return None
        written = _WHOLE if kind is int else _NUMBER
        if not written.fullmatch(text):
            what = "whole number" if kind is int else "number"
            raise InvalidInput(f"field {name!r}: {text!r} is not a {what}", where=where)
        return kind(text)

    return read("value", float), read("k", int), read("n", int)


def _labels(
    id: str, seed: str, fields: Mapping[str, str], where: str, labels: dict[str, Labels]
) -> str | None:
    text = fields.get("labels", "")
    if not text:
        return None
    if set(text) - {"0", "1"}:
        raise InvalidInput("field 'labels' holds something other than 0 and 1", where=where)
    reference = f"{id}@{seed}" if seed else id
    labels[reference] = Labels(id=reference, labels=[int(bit) for bit in text])
    return reference


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
