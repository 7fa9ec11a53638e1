"""Where the files that ship inside the kit lie."""

from __future__ import annotations

from pathlib import Path


def package_folder() -> Path:
    """The folder ``kit/`` of the running package; ``path`` of a ``package`` pin starts here."""
    return Path(__file__).resolve().parents[1]
