"""What the store holds, and what it may forget: for ``kit store`` and ``kit doctor``.

A step that finishes removes its checkpoints; one that is killed needs them to go on. Abandoned
ones belong to steps that nobody ran again: another parameter gave another key. The kit never
removes those by itself, because it cannot know whether their run will be resumed.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from msgspec import Struct

from kit.engine.locks import lock_if_free
from kit.engine.store import RECORD, Store
from kit.errors import KitError
from kit.results.run import Run

DAY = 86400
ABANDONED_DAYS = 7


class Held(Struct, frozen=True, kw_only=True):
    """One finished step."""

    key: str
    kind: str
    instance: str
    gb: float
    """Size of its files; 0 where they were dropped."""
    days: float
    """Since it was made."""
    dropped: bool
    experiments: list[str]
    """Whose runs used it, as far as their directories are known."""
    runs: list[str]


def uses(runs_dir: Path) -> dict[str, list[tuple[str, str]]]:
    """Key -> experiments and names of the run directories that used it.

    A directory that cannot be read counts as none: what only it used is nobody's.
    """
    users: dict[str, list[tuple[str, str]]] = {}
    for folder in sorted(runs_dir.iterdir()) if runs_dir.is_dir() else []:
        try:
            plan = Run(folder).plan if (folder / "plan.json").is_file() else None
        except KitError:
            continue
        if plan is None:
            continue
        for instance in plan.instances:
            users.setdefault(instance.key, []).append((plan.experiment, folder.name))
    return users


def inventory(store: Store, runs_dir: Path) -> list[Held]:
    """Everything finished, largest first."""
    used, held = uses(runs_dir), []
    for key in store.finished():
        entry = store.look(key, "sizes").entry
        if entry is None:
            continue
        size = 0 if entry.dropped else sum(file.size for file in entry.files.values())
        whose = used.get(key, [])
        made = (store.path(key) / RECORD).stat().st_mtime
        held.append(
            Held(
                key=key,
                kind=entry.kind,
                instance=entry.instance,
                gb=size / 1e9,
                # A file system's clock may run a moment ahead of the machine's.
                days=max(0.0, (time.time() - made) / DAY),
                dropped=entry.dropped,
                experiments=sorted({experiment for experiment, _ in whose}),
                runs=sorted({run for _, run in whose}),
            )
        )
    return sorted(held, key=lambda step: (-step.gb, step.key))


def chosen(
    held: Iterable[Held],
    *,
    run: str | None = None,
    experiment: str | None = None,
    older_than: float | None = None,
) -> list[Held]:
    """What a removal is about: what fits all that is given, and that no other run needs.

    Args:
        held: The inventory.
        run: Name of a run directory: what it alone uses.
        experiment: Id: what runs of it alone use.
        older_than: Days since it was made, at least; 0 is everything.
    """
    return [
        step
        for step in held
        if (run is None or step.runs == [run])
        and (experiment is None or step.experiments == [experiment])
        and (older_than is None or step.days >= older_than)
    ]


def remove(store: Store, keys: Collection[str]) -> tuple[int, int]:
    """Remove steps; how many went, and how many a running step holds."""
    gone = sum(store.remove(key) for key in keys)
    return gone, len(keys) - gone


class Checkpoints(Struct, frozen=True, kw_only=True):
    """What is in scratch under one key."""

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


def checkpoints(home: Path) -> list[Checkpoints]:
    """Everything in ``scratch/``, oldest first."""
    folder = home / "scratch"
    try:
        folders = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []
    return sorted((_look(home, path) for path in folders), key=lambda kept: -kept.days)


def removal(kept: list[Checkpoints]) -> str:
    """The command that removes them: it names each folder, so it cannot take a newer one."""
    return "rm -rf " + " ".join(shlex.quote(str(folder.path)) for folder in kept)


def _look(home: Path, path: Path) -> Checkpoints:
    size, newest = 0, 0.0
    for file in [path, *path.rglob("*")]:
        with contextlib.suppress(OSError):  # removed meanwhile: the step has just finished
            status = file.lstat()
            size, newest = size + status.st_size, max(newest, status.st_mtime)
    return Checkpoints(
        path=path, size=size, days=(time.time() - newest) / DAY, running=_running(home, path.name)
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
