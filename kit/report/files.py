"""Open a run directory for reading, and write what a report is made of.

The verdict is required: a report says what ``kit verify`` said and decides nothing itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from kit.engine import rundir
from kit.engine.durable import write_output
from kit.engine.plan import Plan
from kit.engine.record import Record
from kit.engine.store import sha256_file
from kit.errors import InvalidInput
from kit.results.types import Results
from kit.verify.verdict import SCHEMA_VERSION, Verdict

T = TypeVar("T", bound=Struct)


class Run(Struct, frozen=True, kw_only=True):
    """The files of a run directory that a report reads."""

    folder: Path
    verdict: Verdict
    results: Results | None = None
    plan: Plan | None = None
    record: Record | None = None

    @property
    def name(self) -> str:
        """The directory's own name."""
        return self.folder.resolve().name


def read_run(folder: Path) -> Run:
    """Everything a report needs from ``folder``.

    Raises:
        InvalidInput: Not a run directory, not verified yet, damaged, or of another schema version.
    """
    if not folder.is_dir():
        raise InvalidInput(
            "there is no such run directory",
            where=str(folder),
            next_step=rundir.meant(folder),
        )
    if not (folder / "verdict.json").is_file():
        raise InvalidInput(
            "this run has no verdict.json",
            where=str(folder),
            why="a report repeats the verdict; it does not compare numbers itself",
            next_step=f"kit verify {folder}",
        )
    verdict = read_json(folder / "verdict.json", Verdict, remedy=f"kit verify {folder}")
    _check_results(folder, verdict)
    return Run(
        folder=folder,
        verdict=verdict,
        results=_optional(folder / rundir.RESULTS, Results),
        plan=_optional(folder / rundir.PLAN, Plan),
        record=_optional(folder / rundir.RECORD, Record),
    )


def _check_results(folder: Path, verdict: Verdict) -> None:
    """Refuse a verdict that was made from other numbers than those in the directory."""
    path = folder / rundir.RESULTS
    if not verdict.results_sha256 or verdict.not_run_here or not path.is_file():
        return
    if sha256_file(path) != verdict.results_sha256:
        raise InvalidInput(
            "the verdict is about other results than those beside it",
            where=str(folder / "verdict.json"),
            why=f"{rundir.RESULTS} changed after `kit verify`, or one of the two was copied here",
            next_step=f"kit verify {folder}",
        )


def read_json(path: Path, kind: type[T], *, remedy: str) -> T:
    """One JSON file of a run as its type.

    Raises:
        InvalidInput: Unreadable, truncated, of another schema version or another shape.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InvalidInput(
            "cannot be read", where=str(path), why=error.strerror or str(error), next_step=remedy
        ) from error
    try:
        _check_version(path, text, remedy)
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            "does not have the expected shape", where=str(path), why=str(error), next_step=remedy
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(
            "is not complete JSON (cut off while it was written?)",
            where=str(path),
            why=str(error),
            next_step=remedy,
        ) from error


class _Versioned(Struct):
    schema_version: int = SCHEMA_VERSION


def _check_version(path: Path, text: bytes, remedy: str) -> None:
    found = msgspec.json.decode(text, type=_Versioned).schema_version
    if found != SCHEMA_VERSION:
        newer = "newer" if found > SCHEMA_VERSION else "older"
        raise InvalidInput(
            f"has schema version {found}; this kit reads version {SCHEMA_VERSION}",
            where=str(path),
            why=f"it was written by a{'n' if newer == 'older' else ''} {newer} kit",
            next_step="install the kit version named in the file, or " + remedy,
        )


def _optional(path: Path, kind: type[T]) -> T | None:
    if not path.exists():
        return None
    return read_json(path, kind, remedy="kit run again; finished steps are kept")


def write_file(path: Path, content: str | bytes) -> None:
    """Write ``path`` whole or not at all.

    Raises:
        KitError: The folder is absent or not writable, or the disk is full.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    write_output(path, data, next_step="choose another place: -o FILE")
