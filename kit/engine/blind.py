"""Runs that cannot have copied the numbers: expectations are closed until the results are hashed.

Python tells an audit hook of every file that it opens (PEP 578). While the hook of this module is
on, the run's own process and those of its steps refuse to open an expectation or a record of
reference runs. That stops a step, or a library it calls, that looks up what should come out; it is
no jail for native code that means to.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from kit.manifest.catalog import Catalog

VARIABLE = "KIT_BLIND"
"""The closed paths, for the processes of steps."""
_closed: list[str] = []
_hooked = False


def closed_paths(experiment: str | Path, profile: str) -> list[Path]:
    """What may not be opened while it runs: every expectation of the kit, and its own.

    Args:
        experiment: Its id, or the path of its manifest.
        profile: Name of the profile.
    """
    catalog = Catalog()
    paths = [catalog.root / "expected_results"]
    if catalog.own_path(experiment) is not None:
        own = catalog.expectation_path(experiment, profile)
        paths += [own, *own.parent.glob("*.reference.jsonl")] if own is not None else []
    return paths


def close(paths: list[Path], environ: MutableMapping[str, str] = os.environ) -> None:
    """Refuse to open these files, and those below these folders, from here on."""
    global _hooked
    _closed[:] = [os.path.realpath(path) for path in paths]
    environ[VARIABLE] = os.pathsep.join(_closed)
    if (
        not _hooked
    ):  # a hook cannot be taken away again, so one for good that may have nothing to do
        sys.addaudithook(_refuse)
        _hooked = True


def open_again(environ: MutableMapping[str, str] = os.environ) -> None:
    """The results are hashed: expectations may be read."""
    _closed.clear()
    environ.pop(VARIABLE, None)


def close_if_blind(environ: Mapping[str, str] = os.environ) -> None:
    """In the process of a step: refuse what the run refuses."""
    if environ.get(VARIABLE):
        close([Path(path) for path in environ[VARIABLE].split(os.pathsep)], dict(environ))


def _refuse(name: str, arguments: tuple[Any, ...]) -> None:
    if name != "open" or not _closed or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    path = os.path.realpath(os.fsdecode(arguments[0]))
    if any(path == closed or path.startswith(closed + os.sep) for closed in _closed):
        raise PermissionError(f"the run is blind: {path} may be read once its results are hashed")
