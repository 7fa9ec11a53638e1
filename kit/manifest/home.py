"""Where things live: the kit's home and the repository root."""

from __future__ import annotations

import os
from pathlib import Path

from kit.errors import UsageError

MARKER = Path("manifests") / "pins.yaml"


def kit_home() -> Path:
    """``$KIT_HOME``, or ``.kit`` in the working directory. Not created here."""
    named = os.environ.get("KIT_HOME", "").strip()
    return Path(named).expanduser() if named else Path.cwd() / ".kit"


def find_root(start: Path | None = None) -> Path:
    """The folder with ``manifests/pins.yaml``.

    ``$KIT_ROOT`` if set, else the working directory or a parent of it, else the checkout this
    package was imported from.

    Raises:
        UsageError: None of them has manifests.
    """
    named = os.environ.get("KIT_ROOT", "").strip()
    if named:
        root = Path(named).expanduser()
        if (root / MARKER).is_file():
            return root.resolve()
        raise UsageError(
            f"KIT_ROOT is {root}, where there is no {MARKER}",
            next_step="point KIT_ROOT to the folder that contains manifests/",
        )
    here = (start or Path.cwd()).resolve()
    checkout = Path(__file__).resolve().parents[2]
    for folder in [here, *here.parents, checkout]:
        if (folder / MARKER).is_file():
            return folder
    raise UsageError(
        f"no {MARKER} here or in any folder above",
        why="experiments are described by files of the repository, not by the package",
        next_step="run inside the repository, or set KIT_ROOT to it",
    )
