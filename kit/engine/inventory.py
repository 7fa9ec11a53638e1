"""What the store holds, and what it may forget: ``kit store``."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from pathlib import Path

from msgspec import Struct

from kit.engine.store import RECORD, Store
from kit.errors import KitError
from kit.results.run import Run

DAY = 86400


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
    found: dict[str, list[tuple[str, str]]] = {}
    for folder in sorted(runs_dir.iterdir()) if runs_dir.is_dir() else []:
        try:
            plan = Run(folder).plan if (folder / "plan.json").is_file() else None
        except KitError:
            continue
        if plan is None:
            continue
        for instance in plan.instances:
            found.setdefault(instance.key, []).append((plan.experiment, folder.name))
    return found


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
    return sorted(held, key=lambda one: (-one.gb, one.key))


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
        one
        for one in held
        if (run is None or one.runs == [run])
        and (experiment is None or one.experiments == [experiment])
        and (older_than is None or one.days >= older_than)
    ]


def remove(store: Store, keys: Collection[str]) -> tuple[int, int]:
    """Remove steps; how many went, and how many a running step holds."""
    gone = sum(store.remove(key) for key in keys)
    return gone, len(keys) - gone
