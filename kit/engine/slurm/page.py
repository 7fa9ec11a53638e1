"""The generated parts of ``docs/cluster.md`` that are about SLURM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kit.engine.launch import lines
from kit.engine.slurm import options
from kit.manifest.tables import table
from kit.manifest.types import Resources
from kit.results.plan import Plan, StepInstance

RECORD = "benchmarks/slurm-matrix.json"
"""Written by ``tests/slurm/test_matrix.py`` under ``make test-slurm``."""


def tested(root: Path) -> str:
    """What ``make test-slurm`` last showed, from its committed record."""
    path = root / RECORD
    if not path.is_file():
        return "Not run on a real SLURM yet."
    seen: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return (
        f"Last run of `make test-slurm` ({seen['date']}, SLURM {seen['slurm']}, submitit "
        f"{seen['submitit']}, Python {seen['python']}, one node with {seen['cores']} cores that "
        f"declares {seen['declared_cpus']}): {seen['cells']} evaluations of the miniature world in "
        f"{seen['steps']} steps, {seen['jobs']} jobs, {seen['arrays']} arrays. One job was "
        f"requeued while it ran, another was killed with SIGKILL and done by the next run; the "
        f"tables equal those of a run without SLURM byte for byte. {seen['first_seconds']} s and "
        f"{seen['second_seconds']} s, against {seen['local_seconds']} s without SLURM: each job "
        f"starts Python and torch anew, which for steps of seconds is most of the time."
    )


def requests(root: Path) -> str:
    """What a job asks for."""
    rows = [
        [
            "time",
            f"planned minutes x {options.TIME_FACTOR:g}, at least {options.LEAST_MINUTES} minutes",
        ],
        [
            "memory",
            f"planned GB x {options.MEMORY_FACTOR:g} + {options.MEMORY_EXTRA_GB:g} GB",
        ],
        ["GPUs", "as planned, `--gpus-per-node`"],
        ["cores", f"`--threads` for a CPU step, {options.GPU_CPUS} a GPU"],
        ["nodes, tasks", "1 and 1"],
        [
            "signal",
            f"{options.SIGNAL_SECONDS} s before the limit: the step stops, the job requeues itself",
        ],
        ["requeue", "allowed (`--slurm no-requeue=` forbids it)"],
    ]
    return table(["of SLURM", "what a job asks for"], rows)


def launch_example(root: Path) -> str:
    """``kit plan --launch`` for a made-up step."""
    step = StepInstance(
        id="train",
        step="train",
        kind="tar/train",
        version=1,
        params={"global_batch": 64, "micro_batch": 4, "accumulation": 1},
        resources=Resources(gpus=16, gpu_memory_gb=76, memory_gb=200, minutes=600),
        launch="torchrun",
        key="",
    )
    plan = Plan(
        experiment="example",
        version="1-A",
        family="tar",
        variant="corrected",
        profile="paper",
        results="train",
        instances=[step],
    )
    made = []
    for how in ("slurm", "torchrun"):
        text = lines(plan, step, how, file="plan.json")
        made.append(f"`kit plan example --profile paper --launch {how} train`:\n\n```\n{text}```")
    return "\n\n".join(made)
