"""A rehearsal's findings: what each step took, against what the plan said."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from kit import jsonfile
from kit.durable import write_atomic
from kit.results.files import RECORD
from kit.results.plan import Plan, StepInstance
from kit.results.record import Record, StepRecord

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
        over = []
        if self.measured_minutes is not None and self.measured_minutes > self.planned_minutes:
            over.append("time")
        if self.peak_memory_gb > self.planned_memory_gb:
            over.append("memory")
        if self.peak_gpu_memory_gb > self.planned_gpu_memory_gb:
            over.append("GPU memory")
        return over


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
    made = []
    for step, instances in plan.by_step.items():
        needs, ran = [instance.resources for instance in instances], _ran(instances, record)
        longest = max((step.seconds for step in ran), default=None)
        made.append(
            StepFinding(
                step=step,
                instances=len(instances),
                planned_minutes=max(need.minutes for need in needs),
                measured_minutes=None if longest is None else round(longest / 60, 4),
                planned_memory_gb=max(need.memory_gb for need in needs),
                peak_memory_gb=max((step.peak_memory_gb for step in ran), default=0.0),
                planned_gpu_memory_gb=max(need.gpu_memory_gb for need in needs),
                peak_gpu_memory_gb=max((step.peak_gpu_memory_gb for step in ran), default=0.0),
            )
        )
    return made


def _ran(instances: Iterable[StepInstance], record: Record) -> list[StepRecord]:
    steps = (record.steps[instance.id] for instance in instances)
    return [step for step in steps if step.started]


def plan_error(plan: Plan, record: Record, fraction: float | None = None) -> PlanError:
    """Compare the whole plan with what was measured."""
    ran, minutes = _ran(plan.instances, record), None
    if len(ran) == len(plan.instances) and fraction is None:
        measured = sum(step.seconds for step in ran) / 60
        planned = sum(instance.resources.minutes for instance in plan.instances)
        minutes = round(abs(planned - measured) / measured, 4) if measured else None
    memory = {
        seen.step: abs(seen.planned_gpu_memory_gb / seen.peak_gpu_memory_gb - 1)
        for seen in findings(plan, record)
        if seen.peak_gpu_memory_gb
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
