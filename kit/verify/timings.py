"""Measured times as cells: ``<group>/seconds/<step>`` and ``<group>/seconds/pipeline``.

No step can measure how long it took itself; the run's record knows. A step that was taken from the
store counts with the seconds it took when it really ran. ``@<setting>`` behind the step asks for
its time at one setting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec import structs

from kit.manifest.expectation_types import Expectation
from kit.results.axes import Axes
from kit.results.ids import CellId, parse
from kit.results.plan import Plan, StepInstance
from kit.results.record import Record
from kit.results.run import Run
from kit.results.types import Cell, Results, SeedValue

METRIC, PIPELINE = "seconds", "pipeline"
FINISHED = frozenset({"run", "cached"})


def with_timings(results: Results, expected: Expectation, run: Run) -> Results:
    """The table with the times that the expectation asks for and the run's record has.

    Replicates, settings and groups are those of the axes' roles; several replicates are listed as
    such. ``pipeline`` is the sum over the steps that the expectation's other time cells name and
    everything these were made from; what only measures the outcome is no part of it.

    Args:
        results: As the run wrote it; cells that are there are left alone.
        expected: Says which times are asked for.
        run: Where plan and record are.
    """
    there = {cell.id for cell in results.cells}
    ids = (_time_id(cell.id) for cell in expected.cells if cell.id not in there)
    asked = [id for id in ids if id is not None]
    if not asked or run.plan is None:
        return results
    clock = _Clock(run.plan, run.record, {id.row for id in asked} - {PIPELINE})
    cells = (clock.cell(id) for id in asked)
    return structs.replace(results, cells=[*results.cells, *(c for c in cells if c is not None)])


def _time_id(text: str) -> CellId | None:
    """The id of a time; None for any other, and for ids that do not follow the grammar."""
    try:
        id = parse(text)
    except ValueError:
        return None
    return id if id.metric == METRIC and not id.about_generations else None


class _Clock:
    """The times of one run.

    Args:
        plan: Its steps.
        record: What they took.
        named: Steps that the expectation asks for by name.
    """

    def __init__(self, plan: Plan, record: Record | None, named: set[str]) -> None:
        axes = Axes([instance.axes for instance in plan.instances], plan.roles)
        self._plan = plan
        self._origins = {
            instance.id: axes.origin(instance.id, instance.axes) for instance in plan.instances
        }
        known = {instance.step for instance in plan.instances}
        self._named = named & known or known
        self._seconds = {
            id: step.seconds
            for id, step in (record.steps if record is not None else {}).items()
            if step.state in FINISHED and step.started
        }

    def cell(self, id: CellId) -> Cell | None:
        """The cell, or None when no step of the plan has this name in this group."""
        wanted = self._named if id.row == PIPELINE else {id.row}
        replicates: dict[str, list[StepInstance]] = {}
        for instance in self._plan.instances:
            if instance.step in wanted and self._origins[instance.id].group == id.group:
                replicates.setdefault(self._origins[instance.id].replicate, []).append(instance)
        if not replicates:
            return None
        seeds = []
        for name, instances in replicates.items():
            taken = self._time(id, instances)
            if isinstance(taken, str):
                return Cell(id=str(id), unit="seconds", not_run=taken)
            seeds.append(SeedValue(seed=name, value=taken))
        return Cell(
            id=str(id),
            unit="seconds",
            value=sum(seed.value for seed in seeds) / len(seeds),
            seeds=seeds if len(seeds) > 1 else [],
            step="" if id.row == PIPELINE else next(iter(replicates.values()))[0].id,
        )

    def _time(self, id: CellId, instances: list[StepInstance]) -> float | str:
        """The time of one replicate, or what keeps it from having one."""
        if id.settings:
            asked = set(id.settings)
            at = [
                instance
                for instance in instances
                if set(self._origins[instance.id].settings) <= asked
            ]
            away = {instance.step for instance in instances} - {instance.step for instance in at}
            if away:
                return f"{min(away)} did not run at {' and '.join(id.settings)}"
            instances = at
        if id.row == PIPELINE:
            instances = self._with_upstream(instances)
        several, count = Counter(instance.step for instance in instances).most_common(1)[0]
        if count > 1:
            return f"{several} ran at {count} settings: no single time"
        missing = next(
            (instance.id for instance in instances if instance.id not in self._seconds), None
        )
        if missing is not None:
            return f"the record has no time of {missing}"
        return sum(self._seconds[instance.id] for instance in instances)

    def _with_upstream(self, instances: Iterable[StepInstance]) -> list[StepInstance]:
        """The instances and all they were made from, in the order of the plan."""
        needed: set[str] = set()
        open_ids = [instance.id for instance in instances]
        while open_ids:
            id = open_ids.pop()
            if id not in needed and id in self._plan.by_id:
                needed.add(id)
                open_ids += self._plan.by_id[id].upstream()
        return [instance for instance in self._plan.instances if instance.id in needed]
