"""Run directories: ``<experiment>-<profile>-<UTC time>``, never overwritten."""

from __future__ import annotations

import glob
from datetime import UTC, datetime
from pathlib import Path

from kit.engine.durable import explain
from kit.errors import Preflight

PLAN, EVENTS, RECORD, RESULTS, LABELS, LOGS, SLURM = (
    "plan.json",
    "events.jsonl",
    "record.json",
    "results.json",
    "labels.jsonl",
    "logs",
    "slurm",
)


def meant(path: Path) -> str:
    """What to type where ``path`` is no run directory: the newest run of that experiment."""
    same = [one for one in Path("runs").glob(f"{glob.escape(path.name)}-*") if one.is_dir()]
    if not same:
        return "kit run EXP prints the run directory as its last line"
    return f"did you mean its newest run, {max(same, key=lambda one: one.stat().st_mtime)}?"


def new_run_dir(parent: Path, experiment: str, profile: str, *, rehearsal: bool = False) -> Path:
    """Make an empty run directory.

    Two runs in the same second get different names: ``mkdir`` decides, not a look beforehand.

    Raises:
        Preflight: The parent cannot be written to.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    base = f"{experiment}-{profile}-{'rehearsal-' if rehearsal else ''}{stamp}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_000):
            folder = parent / (base if number == 1 else f"{base}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        what = explain(error, where=str(parent), path=parent).what
        raise Preflight(
            what, where=str(parent), next_step="choose another folder: --runs-dir DIR"
        ) from None
    raise Preflight(f"there are already 10,000 runs called {base}", where=str(parent))
