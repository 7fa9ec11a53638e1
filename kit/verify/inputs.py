"""Reading a run directory, strictly: what is wrong is named by file and field."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from kit.engine.rundir import meant
from kit.errors import InvalidInput
from kit.results.labels import LabelFiles
from kit.results.types import Results

SUPPORTED = 1


@dataclass(frozen=True)
class Run:
    """A run directory.

    Attributes:
        path: The directory.
        results: Its table.
        labels: Its label files.
        overrides: What the run changed against the manifest.
        rehearsal: Stand-in weights and data.
        results_sha256: Of ``results.json``.
        notes: Departures that the record says every report repeats.
        manifest: Path of the user's own manifest; empty for an experiment of the repository.
    """

    path: Path
    results: Results
    labels: LabelFiles
    overrides: list[str]
    rehearsal: bool
    results_sha256: str
    notes: tuple[str, ...] = ()
    manifest: str = ""


def read_run(path: Path) -> Run:
    """Read ``results.json`` and what ``record.json`` and ``plan.json`` say about the run.

    Raises:
        InvalidInput: No run directory, a truncated or edited file.
    """
    if not path.is_dir():
        raise InvalidInput(
            "no such run directory",
            where=str(path),
            next_step=meant(path),
        )
    table = path / "results.json"
    if not table.is_file():
        raise InvalidInput(
            "results.json is missing",
            where=str(path),
            why="the run has not finished",
            next_step="kit run continues where it stopped",
        )
    raw = table.read_bytes()
    record, plan = read_object(path / "record.json"), read_object(path / "plan.json")
    _check_written(record, raw, str(table))
    overrides = [str(item) for item in record.get("overrides") or plan.get("overrides") or []]
    seed = record.get("seed", plan.get("seed"))
    if not overrides and (record.get("modified") or plan.get("modified")):
        overrides = [f"seed={seed}" if seed is not None else "modified"]
    return Run(
        path=path,
        results=decode_results(raw, str(table)),
        labels=LabelFiles(path),
        overrides=overrides,
        rehearsal=bool(record.get("rehearsal") or plan.get("rehearsal")),
        results_sha256=sha256(raw).hexdigest(),
        notes=tuple(str(note) for note in record.get("notes") or plan.get("notes") or ()),
        manifest=str(plan.get("manifest") or ""),
    )


def _check_written(record: dict[str, Any], raw: bytes, where: str) -> None:
    """Refuse a table that is not the one the run's record names (records before it named none)."""
    said = record.get("results_sha256")
    if said and said != sha256(raw).hexdigest():
        raise InvalidInput(
            "results.json is not the table that this run wrote",
            where=where,
            why="record.json names another sha256: one of the two was changed or copied here",
            next_step="kit run EXP writes it again from finished steps; a table of your own is "
            "compared by kit verify EXP --results FILE",
        )


def decode_results(raw: bytes, where: str) -> Results:
    """A table from JSON.

    Raises:
        InvalidInput: Truncated, NaN, a missing or unknown field, another format version.
    """
    try:
        results = msgspec.json.decode(raw, type=Results)
    except msgspec.DecodeError as error:
        why = "NaN and Infinity are no JSON" if b"NaN" in raw or b"Infinity" in raw else ""
        raise InvalidInput(
            str(error),
            where=where,
            why=why or "the file was truncated or edited by hand",
            next_step="run the experiment again; finished steps are kept",
        ) from None
    if results.schema_version != SUPPORTED:
        raise InvalidInput(
            f"field 'schema_version': {results.schema_version}, this kit reads {SUPPORTED}",
            where=where,
        )
    return results


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object, empty when the file is absent.

    Raises:
        InvalidInput: Not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidInput(str(error), where=str(path), why="not a JSON object") from None
