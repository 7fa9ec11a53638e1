"""How far a run is, and how long it still takes.

The plan's minutes are a guess for a machine nobody knows; every finished step corrects it. An
instance is expected to take what finished instances of the same step took, or else its planned
minutes times the ratio that measured and planned times had so far.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from kit.engine.events import Event
from kit.results.plan import Plan, StepInstance

_TRUSTED_FRACTION = 0.03
"""Below this a running step's own progress says little about its duration."""


@dataclass
class StepTally:
    """Counts of one step over its instances."""

    total: int = 0
    cached: int = 0
    run: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def finished(self) -> int:
        """Instances with outputs."""
        return self.cached + self.run


@dataclass
class Running:
    """A running instance."""

    instance: StepInstance
    since: float
    done: int = 0
    total: int = 0
    unit: str = ""

    @property
    def fraction(self) -> float:
        """Share that it reports as done."""
        return self.done / self.total if self.total > 0 else 0.0


class Tally:
    """Fed with events, asked for counts and time left.

    Args:
        plan: The plan that is run.
        jobs: CPU steps at once.
        gpus: GPUs in use.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        jobs: int = 1,
        gpus: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan, self.jobs, self.gpus, self.clock = plan, max(1, jobs), gpus, clock
        self.started = clock()
        self.steps: dict[str, StepTally] = {}
        self.running: dict[str, Running] = {}
        self._rest: dict[str, list[float]] = {}  # step -> [instances left, planned seconds left]
        self._gpu_steps = {one.step for one in plan.instances if one.resources.gpus}
        self._planned = self._measured = 0.0
        for one in plan.instances:
            self.steps.setdefault(one.step, StepTally()).total += 1
            rest = self._rest.setdefault(one.step, [0, 0.0])
            rest[0] += 1
            rest[1] += one.resources.minutes * 60

    @property
    def finished(self) -> int:
        """Instances that are done."""
        return sum(step.finished for step in self.steps.values())

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self.clock() - self.started

    def update(self, item: Event) -> None:
        """Take one event into account."""
        instance = self.plan.by_id.get(item.get("step", ""))
        if instance is None:
            return
        name, counts = item["event"], self.steps[instance.step]
        if name == "step-started":
            self.running[instance.id] = Running(instance, self.clock())
        elif name == "progress" and instance.id in self.running:
            running = self.running[instance.id]
            running.done, running.total = item["done"], item["total"]
            running.unit = item.get("unit", "")
        elif name in ("step-done", "step-cached", "step-failed", "step-stopped"):
            self.running.pop(instance.id, None)
            rest = self._rest[instance.step]
            planned = instance.resources.minutes * 60
            rest[0] -= 1
            rest[1] -= planned
            if name == "step-done":
                counts.run += 1
                counts.seconds += item.get("seconds", 0.0)
                self._planned += planned
                self._measured += item.get("seconds", 0.0)
            elif name == "step-cached":
                counts.cached += 1
            else:
                counts.failed += 1

    def _ratio(self) -> float:
        return self._measured / self._planned if self._planned > 0 else 1.0

    def expected(self, instance: StepInstance) -> float:
        """Seconds an instance is expected to take."""
        counts = self.steps[instance.step]
        if counts.run:
            return counts.seconds / counts.run
        return instance.resources.minutes * 60 * self._ratio()

    def left(self) -> float:
        """Seconds until everything is done, as far as one can tell."""
        work = {False: 0.0, True: 0.0}
        count = {False: 0.0, True: 0.0}
        for step, (instances, planned) in self._rest.items():
            counts, on_gpu = self.steps[step], step in self._gpu_steps
            mean = counts.seconds / counts.run if counts.run else 0.0
            work[on_gpu] += mean * instances if counts.run else planned * self._ratio()
            count[on_gpu] += instances
        longest = 0.0
        for running in self.running.values():
            expected = self.expected(running.instance)
            elapsed = self.clock() - running.since
            rest = max(0.0, expected - elapsed)
            if running.fraction > _TRUSTED_FRACTION:
                rest = elapsed / running.fraction - elapsed
            work[bool(running.instance.resources.gpus)] += rest - expected
            longest = max(longest, rest)
        cpu = work[False] / max(1.0, min(self.jobs, count[False]))
        gpu = work[True] / max(1.0, min(self.gpus, count[True]))
        return max(longest, cpu, gpu, 0.0)


def short_time(seconds: float) -> str:
    """``4.2s``, ``3m05s``, ``2h10m``."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m"
