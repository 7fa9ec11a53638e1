"""Open a run directory for reading, and write what a report is made of.

The verdict is required: a report says what ``kit verify`` said and decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from kit import jsonfile
from kit.durable import write_output
from kit.errors import InvalidInput, Preflight
from kit.results import run
from kit.results.files import VERDICT
from kit.verify.basis import check_follows
from kit.verify.verdict import SCHEMA_VERSION, Verdict


class Run(run.Run):
    """A run directory with its verdict."""

    @cached_property
    def verdict(self) -> Verdict:
        """What ``kit verify`` said.

        Raises:
            InvalidInput: Not verified yet, or damaged.
        """
        path = self.path / VERDICT
        remedy = f"kit verify {self.path}"
        if not path.is_file():
            raise InvalidInput(
                f"this run has no {VERDICT}",
                where=str(self.path),
                why="a report repeats the verdict; it does not compare numbers itself",
                next_step=remedy,
            )
        return jsonfile.read(path, Verdict, next_step=remedy, version=SCHEMA_VERSION)


def read_run(folder: Path) -> Run:
    """A run with a verdict that follows from the files beside it, all of which can be read.

    Raises:
        InvalidInput: Not a run directory, not verified yet, damaged, of another format version, or
            verified before something in it was changed.
    """
    run = Run(folder)
    check_follows(folder, run.verdict)
    _ = run.plan, run.record, run.results
    return run


def write_file(path: Path, content: str | bytes) -> None:
    """Write ``path`` whole or not at all.

    Raises:
        KitError: The folder is absent or not writable, or the disk is full.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    write_output(path, data, next_step="choose another place: -o FILE")


@contextmanager
def needing(what: str) -> Iterator[None]:
    """Around imports of the extra ``report``, some of which may not be installed.

    Raises:
        Preflight: One is not.
    """
    try:
        yield
    except ImportError as error:
        raise Preflight(
            f"{what} needs a library that is not installed",
            why=str(error),
            next_step="pip install 'safety-repro-kit[report]'   (or: make setup)",
        ) from error
