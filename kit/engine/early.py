"""The process of the next GPU step, started while what it reads is still being made.

Imports take ten to thirty seconds on a GPU host, and weights lie on a disk: both can be had while
another step computes. Such a process imports what its kind declares, reads the pinned weights once,
so that they are in the page cache, and waits for its job. It asks nothing of the GPU, holds no lock
and writes nothing, so it can be ended at any time; a step gets the same process as without it,
further on.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from kit.engine.registry import load_registry, params_of
from kit.errors import KitError
from kit.pins.store import PinStore
from kit.results.plan import StepInstance

_CHUNK = 1 << 24


class Early(Struct, frozen=True, kw_only=True):
    """What a process does before it has a job."""

    modules: tuple[str, ...]
    """To import, in this order."""
    folders: tuple[str, ...] = ()
    """Whose ``*.safetensors`` are read."""


def early_work(instance: StepInstance, pins: PinStore, *, rehearsal: bool) -> Early | None:
    """What the process of an instance can do before its inputs are there; ``None`` for nothing.

    Args:
        instance: A GPU step. What torchrun starts makes its own processes.
        pins: Where pins are.
        rehearsal: Weights are made up.
    """
    registry = load_registry()
    if instance.launch == "torchrun" or instance.kind not in registry.names():
        return None
    kind = registry.get(instance.kind)
    modules = kind.imports(params_of(kind, instance.params))
    if not modules:
        return None
    folders: list[str] = []
    for name, use in instance.pins.items() if not rehearsal else ():
        if kind.inputs[name] == "model":
            with contextlib.suppress(KitError):  # it is gone: the step will say so
                folders.append(str(pins.path(use.pin)))
    return Early(modules=modules, folders=tuple(folders))


def prepare(work: Early, wanted: Callable[[], bool]) -> dict[str, Any]:
    """Import and read, until there is a job.

    What cannot be imported or read is left to the step, which says so in its own words.

    Args:
        work: What to do.
        wanted: Whether a job has come.

    Returns:
        Seconds taken, modules imported, bytes read, and whether any of it touched a GPU.
    """
    began, done, read = time.monotonic(), 0, 0
    for name in work.modules:
        if wanted():
            break
        try:
            importlib.import_module(name)
            done += 1
        except Exception:
            traceback.print_exc()
    for folder in work.folders:
        for path in sorted(Path(folder).glob("*.safetensors")):
            with contextlib.suppress(OSError):
                read += _read(path, wanted)
    torch = sys.modules.get("torch")
    return {
        "seconds": round(time.monotonic() - began, 3),
        "imported": done,
        "bytes_read": read,
        "gpu_touched": torch is not None and bool(torch.cuda.is_initialized()),
    }


def _read(path: Path, wanted: Callable[[], bool]) -> int:
    read, buffer = 0, bytearray(_CHUNK)
    with path.open("rb", buffering=0) as file:
        while not wanted() and (count := file.readinto(buffer)):
            read += count
    return read
