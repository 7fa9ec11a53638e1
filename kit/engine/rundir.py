"""Run directories: ``<experiment>-<profile>-<UTC time>``, never overwritten."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from kit.durable import explain
from kit.errors import Preflight


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
