"""What a training run will consume, as files: written once, read by labelling and training."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kit.methods.defensive_tokens.recipe import Plan
from kit.methods.defensive_tokens.samples import Sample
from kit.methods.defensive_tokens.schedule import Schedule
from kit.methods.defensive_tokens.struq import TrainingItem

FILES = ("items.jsonl", "samples.jsonl", "schedule.json")


def save_plan(folder: Path, plan: Plan) -> None:
    """Write the consumed items in the order of their first use, their samples and the schedule.

    Behind them stand the held-out items. All others are left out, so indices are renumbered.
    """
    consumed = [*dict.fromkeys(plan.schedule.order), *plan.heldout]
    position = {index: i for i, index in enumerate(consumed)}
    _write_lines(folder / "items.jsonl", [asdict(plan.items[i]) for i in consumed])
    _write_lines(folder / "samples.jsonl", [asdict(sample) for sample in plan.samples.values()])
    schedule: dict[str, Any] = {
        "steps": plan.schedule.steps,
        "batch": plan.schedule.batch,
        "order": [position[index] for index in plan.schedule.order],
    }
    if plan.heldout:
        schedule["heldout"] = [position[index] for index in plan.heldout]
    (folder / "schedule.json").write_text(json.dumps(schedule) + "\n", encoding="utf-8")


def load_plan(folder: Path) -> Plan:
    """The inverse of :func:`save_plan`."""
    schedule = json.loads((folder / "schedule.json").read_text(encoding="utf-8"))
    samples = [Sample(**row) for row in _read_lines(folder / "samples.jsonl")]
    return Plan(
        items=tuple(TrainingItem(**row) for row in _read_lines(folder / "items.jsonl")),
        schedule=Schedule(tuple(schedule["order"]), schedule["steps"], schedule["batch"]),
        samples={sample.id: sample for sample in samples},
        heldout=tuple(schedule.get("heldout", ())),
    )


def count_kinds(plan: Plan) -> dict[str, int]:
    """How many consumed items of each kind there are."""
    counts: dict[str, int] = {}
    for index in plan.schedule.order:
        kind = plan.items[index].kind
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
