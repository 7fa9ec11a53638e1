"""Hand-made plans of any shape, and an executor without processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from kit.engine.context import StepContext
from kit.engine.events import Event, event
from kit.engine.failures import failure_of
from kit.engine.job import Job
from kit.engine.keys import instance_key
from kit.engine.registry import Registry, StepKind
from kit.engine.runner import Runner
from kit.engine.store import Store
from kit.engine.worker import perform
from kit.manifest.types import Resources
from kit.results.plan import Plan, StepInstance, StepUse


class JoinParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``fake/join``."""

    name: str
    fail: bool = False


def join(context: StepContext, params: JoinParams) -> None:
    """Write the names below this step; a file beside the store can change what comes out."""
    if params.fail:
        raise ValueError(f"{params.name} fails")
    below = [json.loads((one.path / "names.json").read_text()) for one in context.steps("all")]
    salt = context.scratch.parents[1] / f"salt-{params.name}"
    mine = params.name + (salt.read_text() if salt.exists() else "")
    (context.out / "names.json").write_text(json.dumps([mine, below]))


REGISTRY = Registry()
REGISTRY.add(StepKind("fake/join", 1, JoinParams, join, {"all": "steps"}, ("names.json",)))


def plan_of_graph(
    graph: Mapping[str, Sequence[str]],
    *,
    failing: Sequence[str] = (),
    same: Mapping[str, str] | None = None,
    intermediate: Sequence[str] = (),
    **needs: Any,
) -> Plan:
    """A plan of named steps, each with the steps it reads.

    Args:
        graph: Step -> what it reads, in an order they can run in.
        failing: Steps that fail.
        same: Step -> name it works under; two of one name and equal inputs have equal keys.
        intermediate: Steps whose outputs are dropped after use.
        needs: Resources of every step.
    """
    made: dict[str, StepInstance] = {}
    for id, reads in graph.items():
        params = {"name": (same or {}).get(id, id), "fail": id in failing}
        instance = StepInstance(
            id=id,
            step=id,
            kind="fake/join",
            version=1,
            params=params,
            steps={"all": StepUse(instances=list(reads), many=True)},
            resources=Resources(**needs),
            outputs=["names.json"],
            intermediate=id in intermediate,
            key="",
        )
        key = instance_key(instance, REGISTRY.get("fake/join"), made, {})
        made[id] = msgspec.structs.replace(instance, key=key)
    return Plan(
        experiment="fake",
        version="1-A",
        family="tar",
        variant="corrected",
        profile="mini",
        results=next(reversed(made)),
        instances=list(made.values()),
    )


class NoPins:
    """A pin store that nobody asks."""

    def path(self, id: str) -> Path:
        raise AssertionError(id)


class FakeExecutor:
    """Does jobs in this process, one a poll, in an order that a test chooses.

    Args:
        slots: Jobs at once.
        pick: Which of the running jobs ends next.
        before: Called before a job is done.
    """

    def __init__(
        self,
        slots: int = 2,
        pick: Callable[[int], int] = lambda count: 0,
        before: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self.slots, self.pick, self.before = slots, pick, before
        self.running: list[Job] = []
        self.started: list[str] = []
        self.most = 0
        self.stops: list[bool] = []
        self.closed = False

    def fits(self, instance: StepInstance) -> bool:
        return len(self.running) < self.slots

    def start(self, job: Job) -> None:
        self.running.append(job)
        self.started.append(job.instance.id)
        self.most = max(self.most, len(self.running))

    def poll(self, seconds: float) -> list[Event]:
        if not self.running:
            return []
        job = self.running.pop(self.pick(len(self.running)) % len(self.running))
        if self.stops:
            return [event("step-stopped", job.instance.id)]
        self.before(job)
        events: list[Event] = []
        try:
            perform(job, REGISTRY, events.append)
        except Exception as error:
            told = failure_of(error, home=Path(job.home), step=job.instance.id)
            failure = msgspec.to_builtins(told)
            events.append(event("step-failed", job.instance.id, failure=failure))
        return events

    def stop(self, *, kill: bool) -> None:
        self.stops.append(kill)

    def close(self) -> None:
        self.closed = True


class Harness:
    """A runner on a fake executor, with what it did."""

    def __init__(self, plan: Plan, home: Path, executor: FakeExecutor | None = None, **how: Any):
        self.executor = executor or FakeExecutor()
        self.made = 0
        self.events: list[Event] = []
        self.store = Store(home)
        self.runner = Runner(
            plan,
            store=self.store,
            executor=self._executor,
            pins=NoPins(),
            logs=home / "logs",
            emit=self.events.append,
            **how,
        )
        self.outcome = self.runner.run()

    def _executor(self) -> FakeExecutor:
        self.made += 1
        return self.executor

    def named(self, name: str) -> list[str]:
        """Steps of the events of a name, in order."""
        return [item["step"] for item in self.events if item["event"] == name]

    def in_state(self, state: str) -> set[str]:
        """Steps that ended in a state."""
        return {id for id, found in self.outcome.states.items() if found == state}
