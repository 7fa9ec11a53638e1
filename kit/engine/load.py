"""Filling the registry."""

from __future__ import annotations

import importlib
import os

from kit.engine.registry import REGISTRY, Registry

MODULES_VARIABLE = "KIT_STEPS_MODULES"


def step_modules() -> list[str]:
    """Modules that register step kinds; a comma-separated variable replaces ``kit.steps``."""
    named = os.environ.get(MODULES_VARIABLE, "kit.steps")
    return [name.strip() for name in named.split(",") if name.strip()]


def load_registry() -> Registry:
    """Import the modules that register kinds; returns the registry they filled."""
    for name in step_modules():
        importlib.import_module(name)
    return REGISTRY
