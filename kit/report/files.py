"""Open a run directory for reading, and write what a report is made of.

The verdict is required: a report says what ``kit verify`` said and decides nothing itself.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from kit.engine.results import Results
from kit.errors import InvalidInput
from kit.report.record import Plan, Record
from kit.verify.verdict import SCHEMA_VERSION, Verdict

T = TypeVar("T", bound=Struct)


class Generation(Struct, frozen=True, kw_only=True):
    """One line of ``generations.jsonl``: what a model answered. Untrusted, possibly harmful."""

    id: str
    """The cell or label line it belongs to."""
    response: str
    item: str = ""
    prompt: str = ""


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
            next_step="kit run EXPERIMENT   (its last line of output is the run directory)",
        )
    if not (folder / "verdict.json").is_file():
        raise InvalidInput(
            "this run has no verdict.json",
            where=str(folder),
            why="a report repeats the verdict; it does not compare numbers itself",
            next_step=f"kit verify {folder}",
        )
    run = Run(
        folder=folder,
        verdict=read_json(folder / "verdict.json", Verdict, remedy=f"kit verify {folder}"),
        results=_optional(folder / "results.json", Results),
        plan=_optional(folder / "plan.json", Plan),
        record=_optional(folder / "record.json", Record),
    )
    return run


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


def read_generations(run: Run, most: int = 200) -> tuple[list[Generation], int]:
    """The first ``most`` responses of the run and how many there are."""
    path = run.folder / "generations.jsonl"
    if not path.exists():
        return [], 0
    shown: list[Generation] = []
    count = 0
    with path.open("rb") as lines:
        for line_number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            count += 1
            if len(shown) < most:
                try:
                    shown.append(msgspec.json.decode(line, type=Generation))
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise InvalidInput(
                        "is not a generation", where=f"{path}:{line_number}", why=str(error)
                    ) from error
    return shown, count


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write ``path`` whole or not at all.

    Raises:
        InvalidInput: The folder is absent or not writable, or the disk is full.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:60]}.", dir=path.parent)
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)  # mkstemp makes private files; a report is shared
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise InvalidInput(
            "cannot be written", where=str(path), why=error.strerror or str(error)
        ) from error
