"""What a SLURM job asks for: the plan's resources, and what the user adds with ``--slurm``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kit.engine.job import stop_seconds
from kit.errors import UsageError
from kit.results.plan import StepInstance

TIME_FACTOR, LEAST_MINUTES = 3.0, 15
"""A planned time is an estimate; a job ended at its limit costs more than one that waits."""
MEMORY_FACTOR, MEMORY_EXTRA_GB = 1.25, 0.5
"""The rest is for the process that watches over the step."""
GPU_CPUS = 4
"""Cores a GPU, for what feeds it."""
MAX_JOBS = 256
SIGNAL_SECONDS = 90
"""So long before the limit the job is told, stops its step and requeues itself."""

_OURS = {
    "array", "chdir", "error", "export", "input", "job-name", "nodes", "ntasks",
    "ntasks-per-node", "open-mode", "output", "parsable", "signal", "test-only", "wait", "wrap",
}  # fmt: skip
_GPU_REQUESTS = {"gpus", "gpus-per-node", "gpus-per-task", "gres"}
_MEMORY_REQUESTS = {"mem", "mem-per-cpu", "mem-per-gpu"}
_KEY = re.compile(r"(?:(?P<group>cpu|gpu)\.)?(?P<name>[a-z][a-z-]*)")
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<clock>\d+(?::\d+){0,2})")


@dataclass(frozen=True)
class SlurmOptions:
    """How jobs are submitted and followed; none of it may change a number.

    Attributes:
        parameters: sbatch options as they were typed, ``[cpu.|gpu.]KEY=VALUE``.
        max_jobs: Jobs submitted at once, waiting ones included.
        gather: Seconds to wait for further instances of a step, which then share an array.
        refresh: Seconds between two looks at the jobs' event files.
        grace: Seconds that a file of another node may take to become visible here.
    """

    parameters: tuple[str, ...] = ()
    max_jobs: int = MAX_JOBS
    gather: float = 1.0
    refresh: float = 1.0
    grace: float = 30.0

    def __post_init__(self) -> None:
        for text in self.parameters:
            parse(text)

    def recorded(self) -> dict[str, Any]:
        """For the run record."""
        return {"parameters": list(self.parameters), "max_jobs": self.max_jobs}


def parse(text: str) -> tuple[str, str, str]:
    """Read ``[cpu.|gpu.]KEY=VALUE``; returns group (may be empty), key and value.

    Raises:
        UsageError: Not of that form, or an option that the kit sets itself.
    """
    key, equals, value = text.partition("=")
    match = _KEY.fullmatch(key.strip().removeprefix("--").replace("_", "-"))
    if not equals or match is None or not value.isprintable():
        raise UsageError(
            f"--slurm {text!r} is not of the form KEY=VALUE",
            next_step="an option of sbatch by its long name, such as --slurm partition=gpu, "
            "--slurm gpu.constraint=h100 (steps with GPUs only) or --slurm exclusive=true",
        )
    if match["name"] in _OURS:
        raise UsageError(
            f"--slurm {text!r}: the kit sets {match['name']} itself",
            next_step=f"leave it out; not allowed are {', '.join(sorted(_OURS))}",
        )
    if match["name"] == "time":
        minutes(value)
    return match["group"] or "", match["name"], value.strip()


def minutes(text: str) -> int:
    """Minutes of a time as SLURM writes it: ``90``, ``MM:SS``, ``HH:MM:SS``, ``D-HH[:MM[:SS]]``.

    Raises:
        UsageError: Not a time.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"--slurm time={text!r} is not a time",
            next_step="for example time=90 (minutes), time=04:00:00 or time=2-00",
        )
    parts = [int(part) for part in match["clock"].split(":")]
    if match["days"] is not None:
        hours, mins, secs = (*parts, 0, 0)[:3]
        return max(1, int(match["days"]) * 1440 + hours * 60 + mins + (secs > 0))
    if len(parts) == 3:
        return max(1, parts[0] * 60 + parts[1] + (parts[2] > 0))
    return max(1, parts[0] + (len(parts) == 2 and parts[1] > 0))


def request(instance: StepInstance, options: SlurmOptions, *, threads: int = 1) -> dict[str, Any]:
    """submitit's parameters for the job of an instance.

    Equal dictionaries may share an array.

    Args:
        instance: The step.
        options: What the user adds; it wins over the plan.
        threads: Threads of a CPU step.
    """
    needs = instance.resources
    notice = max(SIGNAL_SECONDS, math.ceil(stop_seconds(instance)) + SIGNAL_SECONDS // 2)
    chosen = _chosen(options.parameters, on_gpu=needs.gpus > 0)
    made: dict[str, Any] = {
        "job_name": f"kit-{instance.step}",
        "time": max(LEAST_MINUTES, math.ceil(needs.minutes * TIME_FACTOR)),
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": max(threads, needs.gpus * GPU_CPUS),
        "signal_delay_s": notice,
        "wckey": None,
    }
    if not chosen.keys() & _MEMORY_REQUESTS:
        gigabytes = needs.memory_gb * MEMORY_FACTOR + MEMORY_EXTRA_GB
        made["mem"] = f"{math.ceil(gigabytes * 1024)}MB"
    if needs.gpus and not chosen.keys() & _GPU_REQUESTS:
        made["gpus_per_node"] = needs.gpus
    if "time" in chosen:
        made["time"] = minutes(str(chosen.pop("time")))
        # Told at its start, a short job would requeue itself at once.
        made["signal_delay_s"] = min(notice, made["time"] * 15)  # seconds: a quarter of it
    if "cpus-per-task" in chosen:
        made["cpus_per_task"] = chosen.pop("cpus-per-task")
    made["additional_parameters"] = {"requeue": True, **chosen}
    if "no-requeue" in chosen:
        del made["additional_parameters"]["requeue"]
    return made


def _chosen(parameters: Sequence[str], *, on_gpu: bool) -> dict[str, Any]:
    """The user's options for a step; those for its group win over those for all."""
    chosen: dict[str, Any] = {}
    for wanted in ("", "gpu" if on_gpu else "cpu"):
        for group, name, value in map(parse, parameters):
            if group == wanted:
                chosen[name] = True if value.lower() in ("", "true") else value
    return chosen


def shared_by(request: Mapping[str, Any]) -> str:
    """A text that is the same for requests that may share an array."""
    return repr(sorted((key, repr(value)) for key, value in request.items()))
