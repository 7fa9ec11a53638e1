"""A run directory as its types: what ``kit verify``, ``kit report`` and ``kit compare`` read.

Each file is read when it is asked for, once. Plan and record may be absent (a table can be checked
without them); a file that is there and damaged is an error that names it.
"""

from __future__ import annotations

import glob
import re
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from kit import jsonfile
from kit.durable import sha256_file
from kit.errors import InvalidInput
from kit.results.files import CLOSED, LABELS, PLAN, RECORD, RESULTS, SCHEMA_VERSION, SUMS
from kit.results.labels import LabelFiles
from kit.results.plan import PLAN_VERSION, Plan
from kit.results.record import RECORD_VERSION, Record
from kit.results.types import Results

T = TypeVar("T")
_SUM = re.compile(rb"([0-9a-f]{64})  ([^/\n]+)\n?")


class Run:
    """A run directory.

    Args:
        path: The directory.

    Raises:
        InvalidInput: There is none.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise InvalidInput(
                "there is no such run directory", where=str(path), next_step=meant(path)
            )
        self.path = path

    @property
    def name(self) -> str:
        """The directory's own name."""
        return self.path.resolve().name

    @cached_property
    def _table(self) -> bytes:
        path = self.path / RESULTS
        if not path.is_file():
            raise InvalidInput(
                f"there is no {RESULTS} here",
                where=str(self.path),
                why="the run has not finished",
                next_step="kit run continues where it stopped",
            )
        return jsonfile.content_of(path)

    @cached_property
    def results(self) -> Results:
        """Its table.

        Raises:
            InvalidInput: Absent or damaged.
        """
        return decode_results(self._table, str(self.path / RESULTS), next_step=jsonfile.AGAIN)

    @cached_property
    def results_sha256(self) -> str:
        """Of its table's bytes."""
        return sha256(self._table).hexdigest()

    @cached_property
    def plan(self) -> Plan | None:
        """What was to be run, where ``plan.json`` is there.

        Whether it could be run again is not looked at; :func:`kit.results.plan.read_plan` does.

        Raises:
            InvalidInput: Damaged.
        """
        return self._optional(PLAN, Plan, PLAN_VERSION)

    @cached_property
    def record(self) -> Record | None:
        """What happened, where ``record.json`` is there.

        Raises:
            InvalidInput: Damaged.
        """
        return self._optional(RECORD, Record, RECORD_VERSION)

    @property
    def closed(self) -> bool:
        """Whether it has the hashes of its files, which the engine writes last."""
        return (self.path / SUMS).is_file()

    def check_sums(self) -> None:
        """Hold every file that the run closed to its hash.

        Raises:
            InvalidInput: A file is not as the run left it, is gone, or has come in since.
        """
        if not self.closed:
            return
        lines = jsonfile.content_of(self.path / SUMS).splitlines(keepends=True)
        sums = {}
        for number, line in enumerate(lines, start=1):
            match = _SUM.fullmatch(line)
            if match is None:
                raise InvalidInput("no line of sha256sum", where=f"{self.path / SUMS}:{number}")
            sums[match[2].decode(errors="replace")] = match[1].decode()
        here = [name for name in CLOSED if (self.path / name).is_file()]
        for name in dict.fromkeys([*sums, *here]):
            problem = self._differs(name, sums.get(name))
            if problem:
                raise InvalidInput(
                    f"{name} {problem}",
                    where=str(self.path / name),
                    why=f"{SUMS} says so: a file was changed, removed or copied here after the run",
                    next_step="kit run EXP writes it again from finished steps; a table of your "
                    "own is compared by kit verify EXP --results FILE",
                )

    def _differs(self, name: str, said: str | None) -> str:
        path = self.path / name
        if not path.is_file():
            return "is not there any more"
        if said is None:
            return "was not there when the run ended"
        return "" if sha256_file(path) == said else "is not as it was left"

    def _optional(self, name: str, kind: type[T], version: int) -> T | None:
        path = self.path / name
        if not path.exists():
            return None
        return jsonfile.read(path, kind, next_step=jsonfile.AGAIN, version=version)

    @cached_property
    def labels(self) -> LabelFiles:
        """Labels of single items, by what the cells say of them."""
        return LabelFiles(self.path)

    @property
    def has_labels(self) -> bool:
        """Whether there are any."""
        return (self.path / LABELS).is_file()

    @property
    def overrides(self) -> list[str]:
        """What was changed against the manifest: parameters, else the seed."""
        sides = [side for side in (self.record, self.plan) if side is not None]
        changed = next((list(side.overrides) for side in sides if side.overrides), [])
        if not changed and any(side.modified for side in sides):
            seed = sides[0].seed
            changed = [f"seed={seed}" if seed is not None else "modified"]
        return changed

    @property
    def code(self) -> dict[str, set[str]]:
        """Step kind -> digests of the code that made its steps; "" where that is not recorded."""
        steps = self.record.steps if self.record is not None else {}
        digests: dict[str, set[str]] = {}
        for instance in self.plan.instances if self.plan is not None else ():
            made = steps.get(instance.id)
            digests.setdefault(instance.kind, set()).add(made.code if made is not None else "")
        return digests

    @property
    def rehearsal(self) -> bool:
        """Whether weights and data were stand-ins."""
        return any(side is not None and side.rehearsal for side in (self.record, self.plan))

    @property
    def notes(self) -> list[str]:
        """Departures that every report repeats."""
        sides = (self.record, self.plan)
        return next((list(side.notes) for side in sides if side is not None and side.notes), [])

    @property
    def manifest(self) -> str:
        """Path of the user's own manifest; empty for an experiment of the repository."""
        return self.plan.manifest if self.plan is not None else ""


def open_run(path: Path) -> Run:
    """A run whose table is there and readable, and whose files are those that the run left.

    What a directory without hashes, plan or record may still say is decided by who reads it
    (:mod:`kit.verify.whole`).

    Raises:
        InvalidInput: It is not.
    """
    run = Run(path)
    _ = run.results
    run.check_sums()
    said = run.record.results_sha256 if run.record is not None else ""
    if said and said != run.results_sha256:
        raise InvalidInput(
            f"{RESULTS} is not the table that this run wrote",
            where=str(path / RESULTS),
            why=f"{RECORD} names another sha256: one of the two was changed or copied here",
            next_step="kit run EXP writes it again from finished steps; a table of your own is "
            "compared by kit verify EXP --results FILE",
        )
    return run


def decode_results(content: bytes, where: str, *, next_step: str = "") -> Results:
    """A table from JSON.

    Raises:
        InvalidInput: Damaged, of another shape or another format version.
    """
    try:
        return jsonfile.decode(
            content, Results, where=where, next_step=next_step, version=SCHEMA_VERSION
        )
    except InvalidInput:
        if not _of_first_release(content):
            raise
    raise InvalidInput(
        "this table was written by kit 0.1.0, in another shape",
        where=where,
        why="curves stood in its cells; they stand in 'series' now, with a curve a replicate",
        next_step=next_step or "kit run EXP makes it again",
    )


class _OldTable(Struct):
    cells: list[dict[str, Any]]


def _of_first_release(content: bytes) -> bool:
    """Whether it is a table whose cells hold their curves. The format's number did not change."""
    try:
        table = jsonfile.decode(content, _OldTable, where="")
    except InvalidInput:
        return False
    return any("series" in cell for cell in table.cells)


def meant(path: Path) -> str:
    """What to type where ``path`` is no run directory: the newest run of that experiment."""
    same = [
        folder for folder in Path("runs").glob(f"{glob.escape(path.name)}-*") if folder.is_dir()
    ]
    if not same:
        return "kit run EXP prints the run directory as its last line"
    return f"did you mean its newest run, {max(same, key=lambda folder: folder.stat().st_mtime)}?"
