"""``kit export snakemake``: a Snakefile, the plan, and what each job asks for.

The Snakefile is the same for every plan: it makes one rule a step and one job an instance from
``jobs.json``. Nothing of the plan becomes code, so no id or label has to be quoted for Python.
"""

from __future__ import annotations

import math
import re
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from kit.durable import explain, write_atomic
from kit.errors import UsageError
from kit.manifest.types import Resources
from kit.results.plan import Plan, StepInstance

SNAKEFILE, PLAN_FILE, JOBS_FILE = "Snakefile", "plan.json", "jobs.json"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_READABLE, _DIGEST = 60, 12
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


def require_architecture(plan: Plan) -> None:
    """Refuse a plan for GPUs that nobody named: each of its GPU steps would be refused later.

    Raises:
        UsageError: The plan has GPU steps, was made where there is no GPU, and names none.
    """
    from kit.engine.environment import UNKNOWN_ARCH

    for instance in plan.instances:
        if instance.environment.get("gpu_arch") == UNKNOWN_ARCH:
            raise UsageError(
                "the plan has GPU steps, and nobody said for which GPUs",
                where=instance.id,
                why="results of two architectures differ, so the architecture is part of the key",
                next_step="name it: --gpu-arch sm_90 (H100, H200), sm_80 (A100), sm_100 (B200)",
            )


def file_name(instance: StepInstance) -> str:
    """A file name for an instance: readable, and different for different keys."""
    label = instance.id.removeprefix(instance.step).strip("[]")
    readable = _UNSAFE.sub("-", label).strip("-.")[:_READABLE]
    return f"{readable or 'one'}-{instance.key[:_DIGEST]}"


def jobs(plan: Plan) -> dict[str, dict[str, dict[str, Any]]]:
    """Step -> file name -> instance, files it comes after, and what it asks for.

    Instances of equal key are one job: the first of them does the work of all.
    """
    first: dict[str, str] = {}  # key -> finished file
    made: dict[str, dict[str, dict[str, Any]]] = {}
    for instance in plan.instances:
        if instance.key in first:
            continue
        name = file_name(instance)
        first[instance.key] = f"finished/{instance.step}/{name}"
        after = dict.fromkeys(first[plan.by_id[id].key] for id in instance.upstream())
        made.setdefault(instance.step, {})[name] = {
            "instance": instance.id,
            "after": list(after),
            **msgspec.structs.asdict(ask(instance.resources)),
        }
    return made


def write_snakemake(plan: Plan, folder: Path, *, home: Path, kit: str, runs: Path) -> Path:
    """Write the three files.

    Args:
        plan: What to export.
        folder: Where to; made if it is not there.
        home: Kit home that the jobs use unless ``KIT_HOME`` says otherwise.
        kit: The program to call.
        runs: Where the run directory shall be made.

    Returns:
        The Snakefile.

    Raises:
        UsageError: GPU steps without an architecture.
        Preflight: The folder cannot be written to.
    """
    require_architecture(plan)
    text = (resources.files(__package__) / "templates" / SNAKEFILE).read_text(encoding="utf-8")
    values = {"@KIT@": kit, "@HOME@": str(home.absolute()), "@RUNS@": str(runs.absolute())}
    for mark, value in values.items():
        text = text.replace(mark, repr(value))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / PLAN_FILE, plan.to_json())
        write_atomic(folder / JOBS_FILE, msgspec.json.format(msgspec.json.encode(jobs(plan))))
        write_atomic(folder / SNAKEFILE, text.encode())
    except OSError as error:
        raise explain(error, where=str(folder), path=folder) from error
    return folder / SNAKEFILE
