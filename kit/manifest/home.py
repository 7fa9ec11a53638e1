"""Where things live: the kit's home and the repository root."""

from __future__ import annotations

import os
from pathlib import Path

from kit.errors import InvalidInput, UsageError

MARKER = Path("manifests") / "pins.yaml"
MODULES_VARIABLE = "KIT_STEPS_MODULES"
"""Modules that register step kinds, with commas between them; ``kit.steps`` when not set. A folder
stands for the modules that its ``pyproject.toml`` names."""


def kit_home() -> Path:
    """``$KIT_HOME``, or ``.kit`` in the working directory. Not created here."""
    named = os.environ.get("KIT_HOME", "").strip()
    return Path(named).expanduser() if named else Path.cwd() / ".kit"


def find_root(start: Path | None = None) -> Path:
    """The folder with ``manifests/pins.yaml``.

    ``$KIT_ROOT`` if set, else the working directory or a parent of it, else the checkout this
    package was imported from, else what an installed wheel carries.

    Raises:
        UsageError: ``$KIT_ROOT`` has no manifests, or this installation lost its own.
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
    for folder in [here, *here.parents, checkout, shipped_root()]:
        if (folder / MARKER).is_file():
            return folder
    raise UsageError(
        f"no {MARKER} here, in any folder above, or in the installed package",
        next_step="install the kit again, or set KIT_ROOT to a clone of its repository",
    )


def shipped_root() -> Path:
    """What a wheel carries of the repository: ``manifests`` and ``expected_results``."""
    from importlib import resources

    return Path(str(resources.files("kit"))) / "shipped"


def writable_root() -> Path:
    """The repository, for commands that write into it.

    Raises:
        UsageError: There is none: what an installed package carries is not to be edited.
    """
    root = find_root()
    if root == shipped_root():
        raise UsageError(
            "this writes into the kit's repository, and there is none here",
            why="the experiments come from the installed package",
            next_step="run it inside a clone, or set KIT_ROOT to one",
        )
    return root


def step_modules(file: Path) -> list[str] | None:
    """What a ``pyproject.toml`` names as modules of step kinds: ``[tool.kit] steps = ["a.b"]``.

    Returns:
        Their names; ``None`` for a project that has nothing to do with the kit.

    Raises:
        InvalidInput: No TOML, or no list of names.
    """
    import tomllib

    try:
        tool = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {})
    except (OSError, ValueError) as error:
        raise InvalidInput(f"it cannot be read: {error}", where=str(file)) from None
    if "kit" not in tool:
        return None
    named = tool["kit"].get("steps", [])
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise InvalidInput(
            "steps is no list of module names",
            where=f"{file}: [tool.kit]",
            next_step='steps = ["my_paper.steps"]',
        )
    return named


def open_folder(path: Path) -> None:
    """Let step kinds and functions of a folder of one's own be known in every process of a run.

    Args:
        path: The folder, or a file in it; the nearest ``pyproject.toml`` upwards counts.
    """
    here = path.resolve()
    files = (folder / "pyproject.toml" for folder in (here, *here.parents))
    file = next((file for file in files if file.is_file()), None)
    if file is None or step_modules(file) is None:
        return
    if "," in str(file.parent):
        raise UsageError(
            "a folder with step kinds has no comma in its path", where=str(file.parent)
        )
    known = os.environ.get(MODULES_VARIABLE, "kit.steps").split(",")
    os.environ[MODULES_VARIABLE] = ",".join(dict.fromkeys([*known, str(file.parent)]))
