"""Checkpoints of steps that never finished.

A step that finishes removes its own; one that is killed needs them to go on. What is left belongs
to steps that nobody ran again: another parameter gave another key. The kit never removes those by
itself, because it cannot know whether their run will be resumed.
"""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from msgspec import Struct

from kit.engine.locks import lock_if_free

ABANDONED_DAYS = 7


class Leftover(Struct, frozen=True, kw_only=True):
    """The checkpoints under one key."""

    path: Path
    size: int
    """Bytes."""
    days: float
    """Since something was last written."""
    running: bool
    """Whether a process is at this step now."""

    @property
    def abandoned(self) -> bool:
        """Whether it is time to think of removing it."""
        return not self.running and self.days >= ABANDONED_DAYS


def leftovers(home: Path) -> list[Leftover]:
    """Everything in ``scratch/``, oldest first."""
    folder = home / "scratch"
    try:
        found = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []
    return sorted((_look(home, path) for path in found), key=lambda one: -one.days)


def removal(found: list[Leftover]) -> str:
    """The command that removes them: it names each folder, so it cannot take a newer one."""
    return "rm -rf " + " ".join(shlex.quote(str(one.path)) for one in found)


def _look(home: Path, path: Path) -> Leftover:
    size, newest = 0, 0.0
    for one in [path, *path.rglob("*")]:
        try:
            told = one.lstat()
        except OSError:  # removed meanwhile: the step has just finished
            continue
        size += told.st_size
        newest = max(newest, told.st_mtime)
    return Leftover(
        path=path, size=size, days=(time.time() - newest) / 86400, running=_running(home, path.name)
    )


def _running(home: Path, key: str) -> bool:
    lock = home / "locks" / key
    if not lock.exists():  # taking the lock to find out would make the file
        return False
    try:
        with lock_if_free(lock) as free:
            return not free
    except OSError:  # somebody else's store: leave it alone
        return True
