"""Workers of one machine without processes: who starts where, waits, ends, and is tried again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.engine import local
from kit.engine.early import Early, ahead_folder
from kit.engine.events import Event, event
from kit.engine.job import Job
from kit.engine.local import LocalExecutor, Waiting, WorkerProcess
from kit.results.plan import StepInstance
from tests.engine.test_local import instance

WORK = Early(modules=("json",))


def job_of(one: StepInstance) -> Job:
    return Job(instance=one, home="home", log="log")


class Played:
    """A worker that says what a test puts into ``said``."""

    def __init__(self, gpus: list[str], early: Early | None = None) -> None:
        self.gpus, self.early, self.ready = gpus, early, False
        self.out, self._other = os.pipe()
        self.job: Job | None = None
        self.status: int | None = None
        self.child = SimpleNamespace(pid=77, poll=lambda: self.status, wait=lambda: self.status)
        self.said: list[Event] = []
        self.ended = self.closed = False
        self.sent: list[str] = []
        self.signals: list[int] = []

    def send(self, job: Job) -> None:
        self.job = job
        self.sent.append(job.instance.id)

    def say(self, *items: Event, ended: bool = False) -> None:
        self.said, self.ended = list(items), ended
        os.write(self._other, b".")

    def receive(self) -> tuple[list[Event], bool]:
        os.read(self.out, 100)
        said, self.said = self.said, []
        return said, self.ended

    def last_lines(self) -> str:
        return "last words"

    def oom_killed(self) -> bool | None:
        return None

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def close(self) -> int:
        self.closed = True
        return 0


class Bench:
    """An executor of played workers."""

    def __init__(self, folder: Path, **how: Any) -> None:
        self.workers: list[Played] = []
        plain: dict[str, Any] = {"jobs": 2, "memory_gb": 8, "gpus": ["0", "1"], "logs": folder}
        self.executor = LocalExecutor(**plain | how)
        self.executor._worker = self._worker  # type: ignore[method-assign, assignment]

    def _worker(self, gpus: list[str], early: Early | None = None) -> Any:
        self.workers.append(Played(gpus, early))
        return self.workers[-1]

    def start(self, name: str, **needs: Any) -> Played:
        """Start a step; the worker that has it."""
        one = instance(name, **needs)
        self.executor.start(job_of(one))
        (had,) = [w for w in self.workers if w.job is not None and w.job.instance.id == name]
        return had

    def poll(self) -> list[str]:
        return [item["event"] for item in self.executor.poll(0)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.executor.close()


@pytest.mark.parametrize(
    ("gpus", "ended", "kept"),
    [(0, False, True), (0, True, False), (1, False, False), (1, True, False)],
)
def test_a_worker_of_cpu_steps_is_kept_and_no_other(
    bench: Bench, gpus: int, ended: bool, kept: bool
) -> None:
    worker = bench.start("a", gpus=gpus)
    assert len(bench.executor._free_gpus) == 2 - gpus
    worker.say(event("worker-ready"), event("step-done", "a"), ended=ended)
    assert bench.poll() == ["step-done"]
    assert worker.closed is not kept
    assert bench.executor._idle == [worker] * kept
    assert sorted(bench.executor._free_gpus) == ["0", "1"]
    assert worker.job is None
    assert bench.executor._busy == {}
    bench.start("b")
    assert (len(bench.workers) == 1) is kept


def test_what_goes_on_is_not_ended(bench: Bench) -> None:
    worker = bench.start("a")
    assert [one.id for one in bench.executor._running()] == ["a"]
    worker.say(event("progress", "a", done=1, total=2))
    assert bench.poll() == ["progress"]
    assert list(bench.executor._busy.values()) == [worker]
    assert not worker.closed


def test_an_idle_worker_that_died_is_closed_and_another_taken(bench: Bench) -> None:
    first = bench.start("a")
    first.say(event("step-done", "a"))
    bench.poll()
    first.status = -9
    second = bench.start("b")
    assert second is not first
    assert first.closed
    assert not second.closed


@pytest.mark.parametrize(
    ("status", "repeatable", "stopping", "again"),
    [(-9, True, False, True), (-9, False, False, False), (-9, True, True, False),
     (1, True, False, False), (-15, True, False, False)],
)  # fmt: skip
def test_a_killed_step_is_tried_once_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, status: int, repeatable: bool,
    stopping: bool, again: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(local, "_repeatable", lambda one: repeatable)
    first = bench.start("a")
    if stopping:
        bench.executor.stop(kill=False)
        assert first.signals == [signal.SIGTERM]
    first.status = status
    first.say(ended=True)
    assert bench.poll() == ["step-repeated" if again else "step-failed"]
    assert first.closed
    assert first.signals[-1] == signal.SIGKILL
    assert [w.sent for w in bench.workers] == [["a"]] * (1 + again)
    if again:
        second = bench.workers[1]
        second.status = status
        second.say(ended=True)
        (failed,) = bench.executor.poll(0)
        assert failed["event"] == "step-failed"
        assert "it was tried twice" in failed["failure"]["why"]
        assert len(bench.workers) == 2


@pytest.mark.parametrize(
    ("ready", "stopping", "again"),
    [(False, False, True), (True, False, False), (False, True, False)],
)
def test_a_process_that_dies_before_its_step_begins_is_replaced(
    bench: Bench, ready: bool, stopping: bool, again: bool
) -> None:
    bench.executor.expect(instance("a", gpus=1), WORK)
    worker = bench.start("a", gpus=1)
    assert worker.early is not None
    worker.ready, worker.status = ready, 3
    if stopping:
        bench.executor.stop(kill=True)
        assert worker.signals == [signal.SIGKILL]
    worker.say(ended=True)
    (said,) = bench.executor.poll(0)
    assert said["event"] == ("step-early-ended" if again else "step-failed")
    assert len(bench.workers) == 1 + again
    if again:
        assert "status 3" in said["reason"]
        assert (bench.workers[1].sent, bench.workers[1].early) == (["a"], None)
        # No other process is started with these modules.
        assert bench.executor.expect(instance("b", gpus=1), WORK) == []


def test_news_that_waits_is_not_kept_for_a_poll(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[float] = []
    select = bench.executor._selector.select
    monkeypatch.setattr(
        bench.executor._selector, "select", lambda seconds: times.append(seconds) or select(0)
    )
    bench.executor._unsaid = [event("note", text="x")]
    assert [item["event"] for item in bench.executor.poll(5.0)] == ["note"]
    assert bench.executor.poll(5.0) == []
    assert times == [0, 5.0]


@pytest.mark.parametrize("kill", [False, True])
def test_all_that_run_are_signalled(bench: Bench, kill: bool) -> None:
    workers = [bench.start(name) for name in "ab"]
    bench.executor.stop(kill=kill)
    wanted = signal.SIGKILL if kill else signal.SIGTERM
    assert [w.signals for w in workers] == [[wanted]] * 2


def test_closing_ends_all(bench: Bench) -> None:
    idle = bench.start("a")
    idle.say(event("step-done", "a"))
    bench.poll()
    other = bench.start("b", gpus=1)
    bench.executor.expect(instance("c", gpus=1), WORK)
    waiting = bench.workers[-1]
    bench.executor.close()
    assert [idle.closed, other.closed, waiting.closed] == [True, True, True]
    assert (bench.executor._busy, bench.executor._idle) == ({}, [])


# What waits.


def test_nothing_waits_without_a_step_or_work(bench: Bench) -> None:
    one = instance("a", gpus=1)
    assert bench.executor.expect(None, WORK) == []
    assert bench.executor.expect(one, None) == []
    assert bench.executor.expect(None, None) == []
    assert bench.executor.expect(instance("a", gpus=3), WORK) == []  # there are two
    assert bench.workers == []
    bench.executor._spoiled.add((("json",), False))
    assert bench.executor.expect(one, WORK) == []
    bench.executor._spoiled.clear()
    (begun,) = bench.executor.expect(one, WORK)
    assert begun["reason"] == "process 77 imports json, and waits"
    assert bench.workers[0].gpus == ["0"]


def test_free_gpus_are_taken_before_those_in_use(bench: Bench) -> None:
    bench.start("a", gpus=1)
    bench.executor.expect(instance("b", gpus=1), WORK)
    assert bench.workers[-1].gpus == ["1"]
    bench.executor.expect(instance("c", gpus=2), WORK)
    assert bench.workers[-1].gpus == ["1", "0"]


@pytest.mark.parametrize(
    ("room", "spoiled", "job", "ahead"),
    [(True, False, True, True), (False, False, True, False), (True, True, True, False),
     (True, False, False, False)],
)  # fmt: skip
def test_a_gpu_is_used_ahead_where_it_has_room_and_nothing_died_of_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, room: bool, spoiled: bool, job: bool,
    ahead: bool,
) -> None:  # fmt: skip
    one = instance("a", gpus=1)
    monkeypatch.setattr(bench.executor, "_room", lambda gpus, more: room)
    if spoiled:
        bench.executor._spoiled.add((("json",), True))
    own = job_of(one) if job else None
    work = Early(modules=("json",), folders=("/weights",), job=own)
    (begun,) = bench.executor.expect(one, work)
    assert ("makes on the GPU" in begun["reason"]) is ahead
    assert "reads the weights in /weights" in begun["reason"]
    early = bench.workers[0].early
    assert early is not None
    assert (early.job is not None) is ahead


@pytest.mark.parametrize("used", [False, True])
def test_what_died_early_is_noted_with_whether_it_used_the_gpu(bench: Bench, used: bool) -> None:
    bench.executor._gpu_memory_gb = {"0": 80.0, "1": 80.0}
    one = instance("a", gpus=1, gpu_memory_gb=10)
    work = Early(modules=("json",), job=job_of(one) if used else None)
    bench.executor.expect(one, work)
    waiting = bench.workers[0]
    waiting.say(event("worker-ready", pid=77))
    (ready,) = bench.executor.poll(0)
    assert (ready["event"], ready["step"]) == ("step-early-ready", "a")
    waiting.status = 5
    waiting.say(ended=True)
    (ended,) = bench.executor.poll(0)
    assert (ended["event"], ended["step"]) == ("step-early-ended", "a")
    assert bench.executor._spoiled == {(("json",), used)}
    again = bench.executor.expect(one, work)
    assert [item["event"] for item in again] == ["step-early"] * used
    assert waiting.closed


@pytest.mark.parametrize(
    ("status", "free", "name", "taken"),
    [
        (None, ["0"], "a", True),  # exactly its own
        (None, ["0", "1"], "a", True),
        (None, ["1"], "a", False),
        (0, ["0", "1"], "a", False),
        (None, ["0", "1"], "b", False),
    ],
)
def test_a_waiting_process_is_for_its_step_on_free_gpus(
    bench: Bench, status: int | None, free: list[str], name: str, taken: bool
) -> None:
    bench.executor.expect(instance("a", gpus=1), WORK)
    worker = bench.workers[0]
    worker.status = status
    bench.executor._free_gpus = free
    had = bench.start(name, gpus=1)
    assert (had is worker) is taken
    assert (bench.executor._waiting is None) is taken
    assert sorted([*bench.executor._free_gpus, *had.gpus]) == free


@pytest.mark.parametrize(
    ("early", "asked", "holds"),
    [
        (None, ["0"], False),
        (WORK, ["0"], False),
        (Early(modules=(), job=job_of(instance("x"))), ["0"], True),
        (Early(modules=(), job=job_of(instance("x"))), ["1", "0"], True),
        (Early(modules=(), job=job_of(instance("x"))), ["1"], False),
    ],
)
def test_who_may_have_taken_memory_of_a_gpu(
    early: Early | None, asked: list[str], holds: bool
) -> None:
    worker: Any = SimpleNamespace(early=early, gpus=["0"])
    assert Waiting(worker, instance("a")).holds(asked) is holds


@pytest.mark.parametrize(
    ("changes", "serves"),
    [
        ({}, True),
        ({"early": None}, False),
        ({"work": None}, False),
        ({"instance": None}, False),
        ({"instance": instance("k", gpus=2)}, False),
        ({"work": Early(modules=("csv",), folders=("f",))}, False),
        ({"work": Early(modules=("json",))}, False),
        ({"early": Early(modules=("json",), folders=("f",), job=job_of(instance("k")))}, True),
        ({"early": Early(modules=("json",), folders=("f",), job=job_of(instance("m")))}, False),
    ],
)
def test_whom_a_waiting_process_serves(changes: dict[str, Any], serves: bool) -> None:
    same = Early(modules=("json",), folders=("f",))
    given = {"early": same, "work": same, "instance": instance("k", gpus=1), **changes}
    worker: Any = SimpleNamespace(early=given["early"], gpus=["0"])
    assert Waiting(worker, instance("k")).serves(given["instance"], given["work"]) is serves


# Memory.


@pytest.mark.parametrize(
    ("others", "more", "most", "room"),
    [
        ([], 10.0, 11.0, True),  # a tenth more than planned
        ([], 10.0, 10.9, False),
        ([4.0], 6.0, 11.0, True),
        ([4.0], 6.0, 10.5, False),
        ([4.0], 0.0, 80.0, False),  # nobody knows what it needs
        ([0.0], 4.0, 80.0, False),
        ([0.5], 0.5, 80.0, True),
        ([None, 4.0], 4.0, 80.0, True),  # a worker without a job
        ([], 4.0, None, False),
    ],
)
def test_room_on_a_gpu(
    bench: Bench, others: list[float | None], more: float, most: float | None, room: bool
) -> None:
    made = bench.executor
    if most is not None:
        made._gpu_memory_gb = {"0": most, "1": 1000.0}
    for number, need in enumerate(others):
        worker: Any = Played(["0"])
        if need is not None:
            worker.job = job_of(instance("x", gpus=1, gpu_memory_gb=need))
        made._busy[-1 - number] = worker
    elsewhere: Any = Played(["1"])
    elsewhere.job = job_of(instance("y", gpus=1, gpu_memory_gb=500.0))
    made._busy[-99] = elsewhere
    assert made._room(["0"], more) is room
    if most is not None:
        assert made._room(["1", "0"], more) is room  # every one of them
    made._busy.clear()


@pytest.mark.parametrize(
    ("running", "waits", "more", "crowded"),
    [
        ([4.0, 4.0], None, 0.0, False),
        ([4.0, 4.1], None, 0.0, True),
        ([4.0], 4.0, 0.0, False),
        ([4.0], 4.5, 0.0, True),
        ([4.0], None, 4.0, False),
        ([4.0], None, 4.5, True),
        ([], None, 0.0, False),
    ],
)
def test_memory_of_what_runs_waits_and_comes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, running: list[float], waits: float | None,
    more: float, crowded: bool,
) -> None:  # fmt: skip
    beside = [instance("x", memory_gb=need) for need in running]
    monkeypatch.setattr(bench.executor, "_running", lambda: beside)
    if waits is not None:
        bench.executor.expect(instance("w", gpus=1, memory_gb=0.0), WORK)
        assert bench.executor._waiting is not None
        bench.executor._waiting.instance = instance("w", memory_gb=waits)
    assert bench.executor._crowded(more) is crowded


# Processes.


@pytest.mark.parametrize(("number", "group"), [(signal.SIGKILL, True), (signal.SIGTERM, False)])
def test_a_kill_is_for_the_group_and_a_request_for_the_process(
    monkeypatch: pytest.MonkeyPatch, number: int, group: bool
) -> None:
    sent: list[tuple[Any, ...]] = []
    monkeypatch.setattr(local.os, "killpg", lambda *given: sent.append(("group", *given)))
    worker: Any = WorkerProcess.__new__(WorkerProcess)
    worker.child = SimpleNamespace(pid=5, send_signal=lambda given: sent.append(("own", given)))
    worker.signal(number)
    assert sent == [("group", 5, number) if group else ("own", number)]


@pytest.mark.parametrize("printed", ["", "words"])
@pytest.mark.parametrize("ahead", [False, True])
def test_what_an_ended_process_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str, ahead: bool
) -> None:
    """Its words where there are any, and nothing that it made ahead."""
    job = Job(instance=instance("a"), home=str(tmp_path), log="")
    folder = ahead_folder(job, 5)
    folder.mkdir(parents=True)
    sent: list[int] = []
    pipes = [SimpleNamespace(close=lambda: sent.append(0)) for _ in range(2)]
    worker: Any = WorkerProcess.__new__(WorkerProcess)
    monkeypatch.setattr(local.os, "killpg", lambda pid, number: sent.append(number))
    worker.child = SimpleNamespace(pid=5, stdin=pipes[0], stdout=pipes[1], wait=lambda: -9)
    worker.early = Early(modules=("json",), job=job if ahead else None)
    worker.errors = tmp_path / "log"
    worker.errors.write_text(printed)
    assert worker.close() == -9
    assert sent == [0, 0, signal.SIGKILL]
    assert folder.exists() is not ahead
    assert worker.errors.exists() is bool(printed)


@pytest.mark.parametrize(("gpus", "threads"), [([], 3), (["0"], None)])
def test_how_workers_are_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: list[str], threads: int | None
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(local, "WorkerProcess", lambda environ, **how: seen.append(how))
    monkeypatch.setattr(local, "worker_environment", lambda environ, **how: seen.append(how))
    made = LocalExecutor(jobs=1, memory_gb=1, gpus=[], logs=tmp_path, threads=3)
    for _ in range(2):
        made._worker(gpus, WORK)
    made.close()
    assert seen[0] == {"threads": threads, "gpus": gpus}
    assert [how["errors"].name for how in seen[1::2]] == ["worker-1.log", "worker-2.log"]
    assert seen[1]["early"] is WORK


def test_the_last_words_are_the_last_five_lines(tmp_path: Path) -> None:
    worker: Any = WorkerProcess.__new__(WorkerProcess)
    worker.job, worker.errors = None, tmp_path / "log"
    assert worker.last_lines() == ""
    worker.errors.write_text("\n".join(str(n) for n in range(9)) + "\n\n")
    assert worker.last_lines() == "4 | 5 | 6 | 7 | 8"
    worker.errors.write_text("x" * 3000)
    assert worker.last_lines() == "x" * 1000
