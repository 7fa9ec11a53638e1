"""Calling a step function in this process, and what is measured while it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from kit.engine import peaks
from kit.engine.context import STOP, Context
from kit.engine.events import Emit
from kit.engine.job import Job
from kit.engine.registry import StepKind
from kit.engine.store import Store
from kit.results.types import Canary


class Measured(Struct, kw_only=True):
    """What running a step function yielded besides its files."""

    peak_memory_gb: float = 0.0
    peak_gpu_memory_gb: float = 0.0
    canaries: list[Canary] = []


Launch = Callable[[Job, StepKind, Path, Path, Emit], Measured]
"""Runs the step function of a job with its output and scratch folders."""


def call(job: Job, kind: StepKind, out: Path, scratch: Path, emit: Emit) -> Measured:
    """Call the step function in this process."""
    context = Context(job, kind, store=Store(Path(job.home)), out=out, scratch=scratch, emit=emit)
    params = msgspec.convert(job.instance.params, kind.params)
    peaks.reset()
    STOP.begin()
    try:
        kind.run(context, params)
    except Exception as error:
        left = context.left()
        if left:
            error.add_note(left)
        raise
    return Measured(
        peak_memory_gb=peaks.memory_gb(),
        peak_gpu_memory_gb=peaks.gpu_memory_gb(),
        canaries=context.canaries,
    )
