"""The files of a run directory: how they are called, and how a results step writes its two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from kit.durable import sha256_file, write_atomic
from kit.results.labels import Labels
from kit.results.types import Cell, Results, Series

SCHEMA_VERSION = 1
"""Of ``results.json``, as the first release writes it. Earlier shapes have the same number;
they are known, and refused in one sentence."""
RESULTS, LABELS = "results.json", "labels.jsonl"
"""What a results step promises as its outputs."""
PLAN, RECORD, EVENTS, VERDICT = "plan.json", "record.json", "events.jsonl", "verdict.json"
SUMS = "SHA256SUMS"
"""Closes a run: ``sha256sum -c SHA256SUMS`` in its directory says whether it is as it was left."""
CLOSED = (PLAN, RESULTS, LABELS, EVENTS, RECORD)
"""The files that a run closes, those of them that it has written."""
LOGS, SLURM = "logs", "slurm"
"""Folders of what steps and cluster jobs printed."""


def write_table(
    folder: Path,
    cells: Sequence[Cell],
    *,
    labels: Iterable[Labels] = (),
    series: Sequence[Series] = (),
) -> None:
    """Write ``results.json`` and ``labels.jsonl`` into the output folder of a results step.

    Experiment, version and profile stay empty: equal steps are shared between experiments, so the
    engine says which this is when it publishes the table.

    Args:
        folder: Where to.
        cells: Of the table.
        labels: Lines that the cells refer to as ``labels.jsonl#<id>``.
        series: Curves.

    Raises:
        ValueError: A cell stands twice.
    """
    ids = [cell.id for cell in cells]
    if len(set(ids)) != len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise ValueError(f"cell {twice} stands twice in the table")
    results = Results(
        schema_version=SCHEMA_VERSION,
        experiment="",
        version="",
        profile="",
        cells=list(cells),
        series=list(series),
    )
    (folder / RESULTS).write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    lines = b"".join(msgspec.json.encode(line) + b"\n" for line in labels)
    (folder / LABELS).write_bytes(lines)


def close(folder: Path) -> None:
    """Write the hashes of what a run has left, whatever its end, as ``sha256sum`` does."""
    left = (name for name in CLOSED if (folder / name).is_file())
    lines = [f"{sha256_file(folder / name)}  {name}\n" for name in left]
    write_atomic(folder / SUMS, "".join(lines).encode())


def stored(store: Path, key: str) -> Path:
    """Where a store keeps the outputs of a step."""
    return store / key[:2] / key
