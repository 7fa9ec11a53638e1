"""Measured times as cells: ``<group>/seconds/<step>`` and ``<group>/seconds/pipeline``.

No step can measure how long it took itself; the run's record knows. A step that was taken from the
store counts with the seconds it took when it really ran.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import structs

from kit.manifest.expectation_types import Expectation
from kit.results.types import Cell, Results, SeedValue
from kit.verify.inputs import read_object

METRIC, PIPELINE = "seconds", "pipeline"
FINISHED = frozenset({"run", "cached"})


def with_timings(results: Results, expected: Expectation, run: Path) -> Results:
    """The table with the times that the expectation asks for and the run's record has.

    A cell is the time of one replicate (the first axis of the step: a pair of models with a seed);
    several replicates are listed as such. ``pipeline`` is the sum over the steps that the
    expectation's other time cells of the group name and everything these were made from; what only
    measures the outcome is no part of it.

    Args:
        results: As the run wrote it; cells that are there are left alone.
        expected: Says which times are asked for.
        run: Run directory, with ``plan.json`` and ``record.json``.
    """
    there = {cell.id for cell in results.cells}
    asked = [id for id in (cell.id for cell in expected.cells) if _is_time(id) and id not in there]
    plan = read_object(run / "plan.json") if asked else {}
    instances = plan.get("instances")
    if not asked or not isinstance(instances, list):
        return results
    records = read_object(run / "record.json").get("steps", {})
    seconds = {id: _seconds(record) for id, record in records.items()}
    named = {_step(id) for id in asked} - {PIPELINE}
    cells = [_cell(id, instances, seconds, named) for id in asked]
    return structs.replace(results, cells=[*results.cells, *(c for c in cells if c is not None)])


def _is_time(id: str) -> bool:
    parts = id.split("/")
    return len(parts) == 3 and parts[1] == METRIC


def _step(id: str) -> str:
    return id.rpartition("/")[2]


def _seconds(record: Any) -> float | None:
    if not isinstance(record, Mapping) or record.get("state") not in FINISHED:
        return None
    value = record.get("seconds")
    return float(value) if isinstance(value, int | float) else None


def _cell(
    id: str,
    instances: Sequence[Mapping[str, Any]],
    seconds: Mapping[str, float | None],
    named: set[str],
) -> Cell | None:
    """The cell, or None when no step of the plan has this name."""
    group, step = id.split("/")[0], _step(id)
    replicates: dict[str, list[Mapping[str, Any]]] = {}
    for one in instances:
        name = _replicate(one, group)
        if name is not None:
            replicates.setdefault(name, []).append(one)
    steps = _upstream(instances, named) if step == PIPELINE else {step}
    chosen = {
        name: [one for one in found if one.get("step") in steps]
        for name, found in replicates.items()
    }
    chosen = {name: found for name, found in chosen.items() if found}
    if not chosen:
        return None
    values: dict[str, float] = {}
    for name, found in chosen.items():
        problem, total = _total(found, seconds)
        if problem:
            return Cell(id=id, unit="seconds", not_run=problem)
        values[name] = total
    mean = sum(values.values()) / len(values)
    seeds = [SeedValue(seed=name, value=value) for name, value in values.items()]
    where = str(next(iter(chosen.values()))[0]["id"])
    return Cell(
        id=id,
        unit="seconds",
        value=mean,
        seeds=seeds if len(seeds) > 1 else [],
        step=where if step != PIPELINE else "",
    )


def _total(
    found: Sequence[Mapping[str, Any]], seconds: Mapping[str, float | None]
) -> tuple[str, float]:
    """What keeps the instances of one replicate from having a time, and their time."""
    steps = [str(one["step"]) for one in found]
    several = next((step for step in steps if steps.count(step) > 1), None)
    if several is not None:
        return f"{several} ran at {steps.count(several)} settings: no single time", 0.0
    total = 0.0
    for one in found:
        value = seconds.get(str(one["id"]))
        if value is None:
            return f"the record has no time of {one['id']}", 0.0
        total += value
    return "", total


def _replicate(instance: Mapping[str, Any], group: str) -> str | None:
    """The instance's replicate if it belongs to the group."""
    axes = instance.get("axes")
    first = next(iter(axes.values()), None) if isinstance(axes, dict) else None
    if not isinstance(first, dict) or first.get("group") != group:
        return None
    seed = f"/{first['seed']}" if "seed" in first else ""
    return f"{first.get('id')}{seed}"


def _upstream(instances: Sequence[Mapping[str, Any]], named: set[str]) -> set[str]:
    """The named steps and all they were made from; every step when none is named."""
    by_id = {str(one["id"]): one for one in instances}
    todo = [one for one in instances if one.get("step") in named]
    if not todo:
        return {str(one.get("step")) for one in instances}
    seen: set[str] = set()
    while todo:
        one = todo.pop()
        if one["id"] in seen:
            continue
        seen.add(str(one["id"]))
        for use in one.get("steps", {}).values():
            todo += [by_id[id] for id in use.get("instances", ()) if id in by_id]
    return {str(by_id[id].get("step")) for id in seen}
