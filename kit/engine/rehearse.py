"""A rehearsal's findings: what each step took, against what the plan said."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from kit import jsonfile
from kit.durable import write_atomic
from kit.results.files import RECORD
from kit.results.plan import Plan
from kit.results.record import Record

REHEARSAL = "rehearsal.json"


class StepFinding(Struct, frozen=True, kw_only=True):
    """One step over all its instances."""

    step: str
    instances: int
    planned_minutes: float
    """Of one instance, the longest."""
    measured_minutes: float | None
    """Of one instance, the longest; ``None`` when none finished."""
    planned_memory_gb: float
    peak_memory_gb: float
    planned_gpu_memory_gb: float
    peak_gpu_memory_gb: float

    @property
    def over(self) -> list[str]:
        """In what the step took more than planned."""
        found = []
        if self.measured_minutes is not None and self.measured_minutes > self.planned_minutes:
            found.append("time")
        if self.peak_memory_gb > self.planned_memory_gb:
            found.append("memory")
        if self.peak_gpu_memory_gb > self.planned_gpu_memory_gb:
            found.append("GPU memory")
        return found


class PlanError(Struct, frozen=True, kw_only=True):
    """How far the plan was from what was measured, as shares of what was measured."""

    minutes: float | None
    """Of all instances one after another; ``None`` when some did not run or only a share of the
    items did."""
    gpu_memory: float | None
    """The largest of any step that used a GPU."""
    gpu_memory_step: str | None
    """Which one that was."""


class Rehearsal(Struct, frozen=True, kw_only=True):
    """``rehearsal.json``."""

    schema_version: int = 1
    experiment: str
    profile: str
    fraction: float | None
    hardware: dict[str, object]
    steps: list[StepFinding]
    plan_error: PlanError


def findings(plan: Plan, record: Record) -> list[StepFinding]:
    """Compare what was measured with the plan, step by step."""
    found = []
    for step in dict.fromkeys(one.step for one in plan.instances):
        instances = [one for one in plan.instances if one.step == step]
        ran = [record.steps[one.id] for one in instances if record.steps[one.id].started]
        needs = [one.resources for one in instances]
        found.append(
            StepFinding(
                step=step,
                instances=len(instances),
                planned_minutes=max(need.minutes for need in needs),
                measured_minutes=round(max(one.seconds for one in ran) / 60, 4) if ran else None,
                planned_memory_gb=max(need.memory_gb for need in needs),
                peak_memory_gb=max((one.peak_memory_gb for one in ran), default=0.0),
                planned_gpu_memory_gb=max(need.gpu_memory_gb for need in needs),
                peak_gpu_memory_gb=max((one.peak_gpu_memory_gb for one in ran), default=0.0),
            )
        )
    return found


def plan_error(plan: Plan, record: Record, fraction: float | None = None) -> PlanError:
    """Compare the whole plan with what was measured."""
    ran = [record.steps[one.id] for one in plan.instances if record.steps[one.id].started]
    minutes = None
    if len(ran) == len(plan.instances) and fraction is None:
        measured = sum(one.seconds for one in ran) / 60
        planned = sum(one.resources.minutes for one in plan.instances)
        minutes = round(abs(planned - measured) / measured, 4) if measured else None
    memory = {
        one.step: abs(one.planned_gpu_memory_gb - one.peak_gpu_memory_gb) / one.peak_gpu_memory_gb
        for one in findings(plan, record)
        if one.peak_gpu_memory_gb
    }
    worst = max(memory, key=lambda step: memory[step], default=None)
    return PlanError(
        minutes=minutes,
        gpu_memory=None if worst is None else round(memory[worst], 4),
        gpu_memory_step=worst,
    )


def write_rehearsal(plan: Plan, run: Path, fraction: float | None) -> Rehearsal:
    """Write ``rehearsal.json`` into a finished rehearsal's run directory."""
    record = jsonfile.read(run / RECORD, Record)
    made = Rehearsal(
        experiment=plan.experiment,
        profile=plan.profile,
        fraction=fraction,
        hardware=record.hardware,
        steps=findings(plan, record),
        plan_error=plan_error(plan, record, fraction),
    )
    write_atomic(run / REHEARSAL, msgspec.json.format(msgspec.json.encode(made)) + b"\n")
    return made
