"""The process of the next GPU step, started while what it reads is still being made.

Imports take ten to thirty seconds on a GPU host, and weights lie on a disk: both can be had while
another step computes. Such a process imports what its kind declares, reads the pinned weights once,
so that they are in the page cache, and waits for its job. Where the plan leaves room on the GPU
beside what runs there, it also makes what the step needs of no other step (a loaded model, a
started engine: ``StepKind.ahead``); else it asks nothing of the GPU. It holds no lock and leaves no
file, so it can be ended at any time; a step gets the same process as without it, further on.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import Struct

from kit.engine.context import StepContext
from kit.engine.events import Event
from kit.engine.job import Job
from kit.engine.registry import load_registry, params_of
from kit.engine.store import Store
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
    job: Job | None = None
    """Without its inputs: the kind's ``ahead`` is called for it, on the GPU."""


@dataclass
class Ahead:
    """What a process made for a job that had not come yet.

    Attributes:
        key: Of the job's instance.
        made: By name, for :meth:`kit.engine.context.StepContext.made`.
        events: What was reported meanwhile; reported again when the step runs.
    """

    key: str
    made: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)


def early_work(
    instance: StepInstance,
    pins: PinStore,
    *,
    rehearsal: bool,
    job: Callable[[], Job] | None = None,
) -> Early | None:
    """What the process of an instance can do before its inputs are there; ``None`` for nothing.

    Args:
        instance: A GPU step. What torchrun starts makes its own processes.
        pins: Where pins are.
        rehearsal: Weights are made up.
        job: Its job without the steps that it reads, for what its kind makes ahead.
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
    own = job() if job is not None and kind.ahead is not None and _pinned(instance) else None
    return Early(modules=modules, folders=tuple(folders), job=own)


def _pinned(instance: StepInstance) -> bool:
    """Whether the models that an instance reads are pins: what a step makes is not there yet."""
    return all(name in instance.pins for name in instance.models)


def prepare(work: Early, wanted: Callable[[], bool]) -> tuple[dict[str, Any], Ahead | None]:
    """Import and read, until there is a job; make ahead what can be, if there is none by then.

    What cannot be imported or read is left to the step, which says so in its own words.

    Args:
        work: What to do.
        wanted: Whether a job has come.

    Returns:
        Seconds taken, modules imported, bytes read, seconds of what was made ahead, and whether
        any of it touched a GPU; and what was made.
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
    facts = {
        "seconds": round(time.monotonic() - began, 3),
        "imported": done,
        "bytes_read": read,
    }
    ahead = None
    if work.job is not None and not wanted():
        began = time.monotonic()
        ahead = _made_ahead(work.job)
        facts["ahead_seconds"] = round(time.monotonic() - began, 3)
    torch = sys.modules.get("torch")
    facts["gpu_touched"] = torch is not None and bool(torch.cuda.is_initialized())
    return facts, ahead


def _made_ahead(job: Job) -> Ahead:
    """Call a kind's ``ahead``. Where that fails the process ends, as nobody knows what it left on
    the GPU: the step then starts in a process of its own and says what is wrong."""
    kind = load_registry().get(job.instance.kind)
    assert kind.ahead is not None
    ahead = Ahead(job.instance.key)
    folder = ahead_folder(job, os.getpid())
    try:
        folder.mkdir(parents=True)
        context = StepContext(
            job,
            kind,
            store=Store(Path(job.home)),
            out=folder,
            scratch=folder,
            emit=ahead.events.append,
        )
        ahead.made = kind.ahead(context, params_of(kind, job.instance.params))
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    return ahead


def ahead_folder(job: Job, pid: int) -> Path:
    """Where a process keeps what it makes ahead of a job; it goes with the process."""
    return Path(job.home) / "tmp" / f"{job.instance.key}.ahead-{pid}"


def _read(path: Path, wanted: Callable[[], bool]) -> int:
    read, buffer = 0, bytearray(_CHUNK)
    with path.open("rb", buffering=0) as file:
        while not wanted() and (count := file.readinto(buffer)):
            read += count
    return read
