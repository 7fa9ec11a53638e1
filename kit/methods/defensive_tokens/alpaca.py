"""Readers of instruction data: everything becomes :class:`Sample`, in file order."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kit.methods.defensive_tokens.samples import Sample

FIELDS = ("instruction", "input", "output")
LONGEST = 200_000
"""Characters of a field. The longest published one has a few thousand; a row of ten million would
take hours in a tokenizer and more memory than there is in a model."""


def read_alpaca(path: str | Path, *, prefix: str = "alpaca") -> list[Sample]:
    """Cleaned Alpaca, from a JSON file, a JSON-lines file, a parquet file or a folder of these.

    Ids are ``<prefix>-<row>``: the row in the original order, whatever is shuffled later (P6).

    Raises:
        ValueError: Nothing readable there, or a row without the three fields.
    """
    source = Path(path)
    files = [source] if source.is_file() else sorted(source.rglob("*.parquet"))
    if not files:
        files = sorted(source.rglob("*.json")) + sorted(source.rglob("*.jsonl"))
    if not files:
        raise ValueError(f"no .parquet, .json or .jsonl file at {source}")
    rows = [row for file in files for row in _rows(file)]
    return [to_sample(row, f"{prefix}-{i}", f"{source}, row {i}") for i, row in enumerate(rows)]


def read_alpaca_farm(path: str | Path) -> list[Sample]:
    """AlpacaFarm's evaluation set with input: 208 of the 805 (defensive_tokens.md, 2.1).

    Ids are ``alpacafarm-<row>`` with the row among all 805; order is kept. Outputs are left as they
    are: many begin with a line break, which is part of the completion attack (P20).

    Raises:
        ValueError: Not a JSON list of such rows, or no row has input.
    """
    rows = list(_rows(Path(path)))
    samples = [to_sample(row, f"alpacafarm-{i}", f"{path}, row {i}") for i, row in enumerate(rows)]
    chosen = [sample for sample in samples if sample.input != ""]
    if not chosen:
        raise ValueError(f"{path}: none of {len(rows)} rows has input")
    return chosen


def to_sample(row: Mapping[str, Any], sample_id: str, where: str) -> Sample:
    """One row as a sample.

    Raises:
        ValueError: A field is missing, is not text, or is longer than any instruction.
    """
    for name in FIELDS:
        text = row.get(name)
        if not isinstance(text, str):
            raise ValueError(f"{where}: the field {name!r} is missing or is not text")
        if len(text) > LONGEST:
            raise ValueError(
                f"{where}: the field {name!r} has {len(text):,} characters; the limit is "
                f"{LONGEST:,}"
            )
    return Sample(sample_id, row["instruction"], row["input"], row["output"])


def _rows(file: Path) -> Iterable[Mapping[str, Any]]:
    if file.suffix == ".parquet":
        return _parquet_rows(file)
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read {file}: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{file}: expected a JSON list of objects")
    return rows


def _parquet_rows(file: Path) -> Iterable[Mapping[str, Any]]:
    # Through pyarrow: datasets would first write a cache of its own.
    parquet: Any = importlib.import_module("pyarrow.parquet")
    try:
        rows: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
        return rows
    except Exception as error:
        raise ValueError(f"cannot read {file}: {error}") from error
