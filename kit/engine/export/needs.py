"""What to ask another engine for, from what the plan says a step needs."""

from __future__ import annotations

import math

from msgspec import Struct

from kit.engine.plan import Plan
from kit.engine.registry import default_resources
from kit.errors import UsageError
from kit.manifest.types import Resources

STARTER_MB = 256
"""The process that starts the step and watches it, beside the step's own memory."""
START_MINUTES = 10
"""Pulling an image, importing torch, reading a model from a cold disk."""
TIME_FACTOR = 2
"""A limit is there to stop what hangs; the plan's minutes were measured on one kind of machine."""
THREADS_PER_GPU = 4
"""Process, engine and data of a GPU step; the plan counts no cores."""


class Ask(Struct, frozen=True):
    """What a scheduler is asked for."""

    gpu: int
    mem_mb: int
    """MiB, as SLURM and Snakemake's executors read it."""
    runtime: int
    """Limit in minutes."""
    threads: int


def ask(needs: Resources) -> Ask:
    """From a step's needs to a request: a CPU step computes with one thread however many there are.

    Args:
        needs: The instance's resources in the plan.
    """
    return Ask(
        gpu=needs.gpus,
        mem_mb=math.ceil(needs.memory_gb * 1024) + STARTER_MB,
        runtime=math.ceil(needs.minutes * TIME_FACTOR) + START_MINUTES,
        threads=max(1, THREADS_PER_GPU * needs.gpus),
    )


def small() -> Ask:
    """For what is no step: fetching, collecting."""
    return ask(default_resources(None, ""))


def require_architecture(plan: Plan) -> None:
    """Refuse a plan for GPUs that nobody named: each of its GPU steps would be refused later.

    Raises:
        UsageError: The plan has GPU steps, was made where there is no GPU, and names none.
    """
    from kit.engine.environment import UNKNOWN_ARCH

    for one in plan.instances:
        if one.environment.get("gpu_arch") == UNKNOWN_ARCH:
            raise UsageError(
                "the plan has GPU steps, and nobody said for which GPUs",
                where=one.id,
                why="results of two architectures differ, so the architecture is part of the key",
                next_step="name it: --gpu-arch sm_90 (H100, H200), sm_80 (A100), sm_100 (B200)",
            )
