"""Long steps: launched by the processes they have, saved in time, stopped without losing work."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from kit.engine import runner as runner_module
from kit.engine.context import StepContext, Stop, Stopped
from kit.engine.events import Event
from kit.engine.job import Job, make_job, stop_seconds
from kit.engine.local import LocalExecutor
from kit.engine.registry import REGISTRY
from kit.engine.session import Options, run_steps
from kit.engine.store import Store
from kit.engine.worker import perform
from kit.errors import InvalidInput
from kit.results.plan import Plan
from tests.engine.conftest import ToyPins, manifest, plan_of


def plan(resources: dict[str, Any] | None = None, kind: str = "toy/long", **params: Any) -> Plan:
    """A single step that counts."""
    profile = {"summary": "s", "set": {"r": params}}
    if resources is not None:
        profile["resources"] = {"r": resources}
    steps = [{"id": "r", "kind": kind, "version": 2 if kind == "toy/make" else 1}]
    return plan_of(manifest(steps=steps, results="r", profiles={"mini": profile}))


def job_of(tmp_path: Path, made: Plan) -> Job:
    return make_job(
        made,
        made.instances[0],
        home=tmp_path / "home",
        logs=tmp_path / "logs",
        pins=ToyPins(tmp_path),
        digests={},
    )


def scratch(tmp_path: Path, made: Plan) -> Path:
    return Store(tmp_path / "home").scratch(made.instances[0].key)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def steps_seen(tmp_path: Path, made: Plan) -> list[tuple[int, int]]:
    """(process id, steps done) of every rank that has done some."""
    texts = [path.read_text() for path in sorted(scratch(tmp_path, made).glob("seen-*"))]
    return [(int(one.split()[0]), int(one.split()[1])) for one in texts if one]


def stopped(tmp_path: Path, made: Plan, processes: int = 1) -> tuple[str, float]:
    """Start the step, ask it to stop when it has begun; its last event, and how long it took."""
    executor = LocalExecutor(jobs=4, memory_gb=8, gpus=[], logs=tmp_path / "logs")
    try:
        executor.start(job_of(tmp_path, made))
        began: list[Event] = []

        def running() -> bool:
            began.extend(executor.poll(0.05))
            assert not [item for item in began if item["event"] == "step-failed"]
            seen = steps_seen(tmp_path, made)
            return len(seen) == processes and min(count for _, count in seen) > 5

        wait_for(running)
        pids = [pid for pid, _ in steps_seen(tmp_path, made)]
        executor.stop(kill=False)
        asked, last = time.monotonic(), ""
        while not last:
            assert time.monotonic() < asked + 30
            last = next((i["event"] for i in executor.poll(0.05) if i["event"] != "progress"), "")
        seconds = time.monotonic() - asked
    finally:
        executor.close()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids), 10)
    return last, seconds


# One process where one is enough.


@pytest.mark.parametrize(
    ("resources", "launch", "world"),
    [
        (None, "worker", "1x1x1"),
        ({"gpus": 1}, "worker", "1x1x1"),
        ({"processes": 1}, "worker", "1x1x1"),
        ({"gpus": 2}, "torchrun", "2x1x1"),
        ({"processes": 3}, "torchrun", "3x1x1"),
    ],
)
def test_launch_follows_what_the_step_has(
    resources: dict[str, Any] | None, launch: str, world: str
) -> None:
    made = plan(resources).instances[0]
    assert (made.launch, made.environment["world"]) == (launch, world)


def test_a_kind_of_a_single_process_stays_one_on_two_gpus() -> None:
    """An inference engine shares its GPUs by itself."""
    assert plan({"gpus": 2}, kind="toy/make", seed=1).instances[0].launch == "worker"


@pytest.mark.parametrize(
    ("resources", "kind", "words"),
    [
        ({"processes": 2}, "toy/make", "toy/make runs in a single one"),
        ({"processes": 2, "gpus": 2}, "toy/long", "a step on GPUs has one for each"),
    ],
)
def test_processes_that_cannot_be(resources: dict[str, Any], kind: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        plan(resources, kind=kind, **({"seed": 1} if kind == "toy/make" else {}))


def test_alone_it_runs_without_torchrun(tmp_path: Path) -> None:
    made = plan(steps=3)
    perform(job_of(tmp_path, made), REGISTRY, lambda item: None)
    out = Store(tmp_path / "home").path(made.instances[0].key) / "number.json"
    assert json.loads(out.read_text())["world"] == 1


def test_steps_that_share_the_cpu_count_their_processes(tmp_path: Path) -> None:
    executor = LocalExecutor(jobs=2, memory_gb=64, gpus=[], logs=tmp_path)
    shared, single = plan({"processes": 2}).instances[0], plan().instances[0]
    assert executor.fits(shared)
    executor._running = lambda: [single]  # type: ignore[method-assign]
    assert executor.fits(single)
    assert not executor.fits(shared)


# Saving at least once an interval.


def test_state_is_due_once_an_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step every 25 s with an interval of a minute: what is saved is at most 75 s old."""
    clock = [1000.0]
    monkeypatch.setattr("kit.engine.context.time.monotonic", lambda: clock[0])
    made = plan({"save_minutes": 1})
    context = StepContext(
        job_of(tmp_path, made),
        REGISTRY.get("toy/long"),
        store=Store(tmp_path / "home"),
        out=tmp_path,
        scratch=tmp_path,
        emit=lambda item: None,
    )
    saved = []
    for step in range(12):
        clock[0] += 25
        if context.due():
            context.saved()
            saved.append(step)
    assert saved == [2, 5, 8, 11]


def test_kinds_and_profiles_declare_the_times() -> None:
    assert stop_seconds(plan().instances[0]) == 9.0  # the kind's
    assert stop_seconds(plan({"gpus": 1}).instances[0]) == 9.0
    assert stop_seconds(plan({"stop_seconds": 0}).instances[0]) == 0
    assert plan({"save_minutes": 2}).instances[0].resources.save_minutes == 2
    assert plan().instances[0].resources.save_minutes == 10
    keys = {plan(one).instances[0].key for one in (None, {"stop_seconds": 1}, {"save_minutes": 1})}
    assert len(keys) == 1  # no number depends on it


# Stopping.


def test_a_stopped_step_saves_where_it_is_and_goes_on_from_there(tmp_path: Path) -> None:
    made = plan()
    last, _ = stopped(tmp_path, made)
    assert last == "step-stopped"
    ((_, seen),) = steps_seen(tmp_path, made)
    assert (scratch(tmp_path, made) / "state-0").read_text() == str(seen)  # nothing was lost
    assert not list((tmp_path / "home" / "tmp").iterdir())


def test_a_step_that_never_asks_is_stopped_at_once(tmp_path: Path) -> None:
    made = plan(asks=False)
    last, seconds = stopped(tmp_path, made)
    assert last == "step-stopped"
    assert seconds < 5
    assert not (scratch(tmp_path, made) / "state-0").exists()


def test_ranks_stop_at_the_same_step_and_have_their_time(tmp_path: Path) -> None:
    """The slower of two ranks saves for two seconds; both save the same step."""
    pytest.importorskip("torch")
    made = plan({"processes": 2}, saving=1.0)
    last, seconds = stopped(tmp_path, made, processes=2)
    assert last == "step-stopped"
    assert seconds > 1.9
    states = [(scratch(tmp_path, made) / f"state-{n}").read_text() for n in (0, 1)]
    assert states[0] == states[1]
    assert [count for _, count in steps_seen(tmp_path, made)] == [int(states[0])] * 2


def test_ranks_that_take_longer_than_declared_are_killed(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    made = plan({"processes": 2, "stop_seconds": 0.5}, saving=20.0)
    last, seconds = stopped(tmp_path, made, processes=2)
    assert last == "step-stopped"
    assert seconds < 8
    assert not list(scratch(tmp_path, made).glob("state-*"))


@pytest.mark.parametrize(("seconds", "saved"), [(3.0, True), (0.2, False)])
def test_a_run_waits_as_long_as_its_steps_declare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, saved: bool
) -> None:
    """An interrupted run: saving takes a second and a half, which is in time or is not."""
    monkeypatch.setattr(runner_module, "STOP_MARGIN", 0.3)
    made = plan({"stop_seconds": seconds}, saving=1.5)
    events = tmp_path / "events.jsonl"
    original = runner_module.Runner._handle

    def handle(self: Any, items: list[Event]) -> None:
        if any(count > 5 for _, count in steps_seen(tmp_path, made)):
            self._signals = 1  # as a Ctrl-C counts
        original(self, items)

    monkeypatch.setattr(runner_module.Runner, "_handle", handle)
    outcome = run_steps(
        made,
        store=Store(tmp_path / "home"),
        pins=ToyPins(tmp_path),
        options=Options(jobs=1),
        logs=tmp_path / "logs",
        events=events,
    )
    assert outcome.interrupted
    assert outcome.states == {"r": "stopped"}
    assert (scratch(tmp_path, made) / "state-0").exists() is saved
    (told,) = [one for one in map(json.loads, events.read_text().splitlines())
               if one["event"] == "step-stopping"]  # fmt: skip
    assert f"it has {seconds:g} s to save its state" in told["reason"]


def test_a_second_signal_does_not_wait() -> None:
    stop = Stop()
    stop.begin()
    with pytest.raises(Stopped):
        stop.ask()  # a step that has not asked yet
    stop = Stop()
    stop.begin()
    stop.waits = True
    stop.ask()
    assert stop.asked
    with pytest.raises(Stopped):
        stop.ask()
