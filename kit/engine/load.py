"""Filling the registry."""

from __future__ import annotations

import importlib
import os
import traceback

from kit.engine.registry import REGISTRY, Registry
from kit.errors import InvalidInput, KitError

MODULES_VARIABLE = "KIT_STEPS_MODULES"


def step_modules() -> list[str]:
    """Modules that register step kinds; a comma-separated variable replaces ``kit.steps``."""
    named = os.environ.get(MODULES_VARIABLE, "kit.steps")
    return [name.strip() for name in named.split(",") if name.strip()]


def load_registry() -> Registry:
    """Import the modules that register kinds; returns the registry they filled.

    Raises:
        InvalidInput: A module of the user's cannot be imported.
    """
    for name in step_modules():
        try:
            importlib.import_module(name)
        except KitError:
            raise
        except Exception as error:
            if name.partition(".")[0] == "kit":
                raise
            raise InvalidInput(
                f"the step module {name!r} cannot be imported: {type(error).__name__}: {error}",
                where=_place(error) or MODULES_VARIABLE,
                next_step=f"mend the module, or {MODULES_VARIABLE}; Python looks for modules in "
                "what is installed and in PYTHONPATH",
            ) from error
    return REGISTRY


def _place(error: Exception) -> str:
    """``file:line`` of the user's code that an import failed in; empty if no file was reached."""
    importers = (__file__, importlib.__file__)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith("<") and frame.filename not in importers:
            return f"{frame.filename}:{frame.lineno}"
    return ""
