"""The executor against a cluster that a test plays: arrays, limits, and every way to end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.engine.events import Event, EventLog, event
from kit.engine.job import Job
from kit.engine.runner import Runner
from kit.engine.slurm.cluster import Seen, SubmissionRefused
from kit.engine.slurm.executor import SlurmExecutor
from kit.engine.slurm.options import SlurmOptions
from kit.engine.slurm.task import StepTask
from kit.engine.store import Store
from kit.engine.worker import perform
from kit.manifest.types import Resources
from kit.results.plan import Plan
from tests.engine.fakes import REGISTRY, NoPins, plan_of_graph


class Played:
    """A cluster whose jobs do what the test says.

    Args:
        works: Do jobs at once, in this process.
    """

    def __init__(self, *, works: bool = False) -> None:
        self.works = works
        self.arrays: list[list[str]] = []
        self.requests: list[dict[str, Any]] = []
        self.states: dict[str, Seen] = {}
        self.last: dict[str, Seen] = {}
        self.refusals: list[SubmissionRefused] = []
        self.cancelled: list[tuple[list[str], bool]] = []
        self.deaf = False

    def submit(self, tasks: Sequence[StepTask], parameters: dict[str, Any]) -> list[str]:
        if self.refusals:
            raise self.refusals.pop(0)
        jobs = [msgspec.json.decode(task.job, type=Job) for task in tasks]
        self.arrays.append([job.instance.id for job in jobs])
        self.requests.append(parameters)
        number = len(self.arrays)
        ids = [f"{number}_{i}" if len(tasks) > 1 else f"{number}" for i in range(len(tasks))]
        self.states.update(dict.fromkeys(ids, Seen("PENDING")))
        if self.works:
            for task, job in zip(tasks, jobs, strict=True):
                perform(job, REGISTRY, EventLog(Path(task.events)))
        return ids

    def ask(self, ids: Collection[str]) -> dict[str, Seen] | None:
        return None if self.deaf else {id: self.states[id] for id in ids if id in self.states}

    def explain(self, id: str) -> Seen:
        return self.last.get(id, self.states.get(id, Seen()))

    def cancel(self, ids: Collection[str], *, kill: bool) -> None:
        self.cancelled.append((sorted(ids), kill))

    def tidy(self, finished: Collection[str]) -> None:
        pass


class Table:
    """An executor on a played cluster, and a clock that the test moves."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.now = 100.0
        self.cluster = Played()
        self.home = folder / "home"
        self.executor = SlurmExecutor(
            folder / "slurm",
            SlurmOptions(**{"refresh": 1.0, "grace": 20.0, **options}),
            cluster=self.cluster,
            clock=lambda: self.now,
        )
        self.events: list[Event] = []

    def start(self, *names: str, **needs: Any) -> None:
        plan = plan_of_graph({name: [] for name in names})
        for one in plan.instances:
            resources = Resources(**needs)
            one = msgspec.structs.replace(one, step="s", resources=resources)
            self.executor.start(Job(instance=one, home=str(self.home), log="log"))

    def poll(self, seconds: float = 5.0) -> list[Event]:
        """Let time pass and look once."""
        self.now += seconds
        found = self.executor.poll(0)
        self.events += found
        return found

    def tell(self, number: int, name: str, step: str, **fields: Any) -> None:
        """A job writes an event."""
        log = EventLog(self.executor.folder / f"job-{number}.events.jsonl")
        log(event(name, step, **fields))
        log.close()

    def named(self, name: str) -> list[str]:
        return [item["step"] for item in self.events if item["event"] == name]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path)


def test_what_becomes_ready_together_shares_an_array(table: Table) -> None:
    table.start("a", "b", "c")
    assert table.poll(0.1) == []  # more may come
    table.start("d")
    table.poll(2)
    table.start("e")
    table.poll(2)
    assert table.cluster.arrays == [["a", "b", "c", "d"], ["e"]]
    assert table.named("step-submitted") == ["a", "b", "c", "d", "e"]
    assert [item["job"] for item in table.events][:2] == ["1_0", "1_1"]


def test_other_needs_are_another_array(table: Table) -> None:
    table.start("a", "b", memory_gb=1)
    table.start("c", memory_gb=2)
    table.poll()
    assert table.cluster.arrays == [["a", "b"], ["c"]]
    assert [made["mem"] for made in table.cluster.requests] == ["1792MB", "3072MB"]


def test_no_array_is_longer_than_slurm_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit.engine.slurm.executor.MOST_IN_ARRAY", 3)
    table = Table(tmp_path)
    table.start(*"abcdefgh")
    table.poll()
    assert [len(array) for array in table.cluster.arrays] == [3, 3, 2]


def test_max_jobs_counts_waiting_ones(tmp_path: Path) -> None:
    table = Table(tmp_path, max_jobs=3)
    plan = plan_of_graph({"x": []})
    table.start("a", "b")
    assert table.executor.fits(plan.instances[0])
    table.poll()
    table.start("c")
    assert not table.executor.fits(plan.instances[0])


def test_events_are_tailed_line_by_line(table: Table) -> None:
    table.start("a")
    table.poll()
    table.tell(1, "step-started", "a")
    path = table.executor.folder / "job-1.events.jsonl"
    with path.open("ab") as handle:
        handle.write(b'{"event":"progress","step":"a","do')
    assert [item["event"] for item in table.poll()] == ["step-started"]
    with path.open("ab") as handle:
        handle.write(b'ne":1,"total":2}\n{"cut sho\n')
    assert [item["event"] for item in table.poll()] == ["progress"]
    assert table.poll() == []


def test_the_end_waits_until_the_outputs_are_visible(table: Table) -> None:
    """On a network file system the rename of another node can be seen late."""
    table.start("a")
    table.poll()
    table.tell(1, "step-done", "a")
    assert table.poll() == []
    key = plan_of_graph({"a": []}).instances[0].key
    place = Store(table.home).path(key)
    place.mkdir(parents=True)
    assert table.poll() == []
    (place / "step.json").touch()
    assert [item["event"] for item in table.poll()] == ["step-done"]


def test_outputs_that_never_come_are_not_waited_for_forever(table: Table) -> None:
    table.start("a")
    table.poll()
    table.tell(1, "step-done", "a")
    table.poll()
    assert [item["event"] for item in table.poll(21)] == ["step-done"]  # the runner looks and says


@pytest.mark.parametrize("state", ["TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "CANCELLED", ""])
def test_a_job_that_vanishes_fails_once(table: Table, state: str) -> None:
    table.start("a")
    table.poll()
    table.tell(1, "step-started", "a")
    table.poll()
    del table.cluster.states["1"]
    table.cluster.last["1"] = Seen(state, node="n1") if state else Seen()
    (table.executor.folder / "1_0_log.err").write_text("one\ntwo\nslurmstepd: error: killed\n")
    for _ in range(10):
        table.poll()
    (failed,) = [item for item in table.events if item["event"] == "step-failed"]
    failure = failed["failure"]
    assert (state or "unknown to SLURM") in failure["message"]
    assert "run the same command again" in failure["next_step"]
    assert "slurmstepd: error: killed" in failure["why"]
    assert table.executor.fits(plan_of_graph({"x": []}).instances[0])


def test_an_end_that_arrives_late_is_believed(table: Table) -> None:
    """SLURM says that the job has ended before the file of its node can be seen here."""
    table.start("a")
    table.poll()
    table.cluster.states["1"] = Seen("COMPLETED")
    table.poll()
    table.tell(1, "step-failed", "a", failure={"type": "ValueError", "message": "no"})
    table.poll()
    table.poll(100)
    assert [item["event"] for item in table.events] == ["step-submitted", "step-failed"]


def test_no_answer_ends_nothing(table: Table) -> None:
    table.start("a")
    table.poll()
    table.cluster.states.clear()
    table.cluster.deaf = True
    for _ in range(10):
        table.poll(30)
    assert table.named("step-failed") == []


def test_requeued_by_slurm(table: Table) -> None:
    table.start("a")
    table.poll()
    table.tell(1, "step-started", "a")
    table.tell(1, "step-stopped", "a")
    table.poll()
    assert table.named("step-requeued") == ["a"]  # the state is PENDING
    table.cluster.states["1"] = Seen("RUNNING")
    table.tell(1, "job-started", "a")
    table.poll()
    table.tell(1, "step-failed", "a", failure={"type": "ValueError", "message": "no"})
    table.poll()
    assert table.named("step-stopped") == []
    assert table.named("step-failed") == ["a"]


@pytest.mark.parametrize(("state", "told"), [("PREEMPTED", False), ("COMPLETED", True)])
def test_preempted_where_slurm_does_not_requeue(table: Table, state: str, told: bool) -> None:
    table.start("a")
    table.poll()
    if told:
        table.tell(1, "step-stopped", "a")
    table.cluster.states["1"] = Seen(state)
    for _ in range(8):
        table.poll()
    assert table.cluster.arrays == [["a"], ["a"]]
    assert table.named("step-requeued") == ["a"]
    assert table.named("step-failed") == []


def test_preempted_again_and_again(table: Table) -> None:
    table.start("a")
    for _ in range(100):
        table.cluster.states = dict.fromkeys(table.cluster.states, Seen("PREEMPTED"))
        table.poll()
    assert len(table.cluster.arrays) == 6
    assert table.named("step-failed") == ["a"]


def test_refused_for_good(table: Table) -> None:
    table.cluster.refusals = [SubmissionRefused("invalid partition", transient=False)]
    table.start("a", "b")
    table.poll()
    assert table.named("step-failed") == ["a", "b"]
    assert "invalid partition" in table.events[0]["failure"]["message"]
    assert "--slurm KEY=VALUE" in table.events[0]["failure"]["next_step"]


def test_refused_for_now(table: Table) -> None:
    busy = SubmissionRefused("Socket timed out", transient=True)
    table.cluster.refusals = [busy, busy]
    table.start("a", "b")
    table.poll()
    table.poll(0.5)
    assert table.cluster.arrays == []  # not at once again
    for _ in range(10):
        table.poll(10)
    assert table.cluster.arrays == [["a", "b"]]
    table.cluster.refusals = [busy] * 6
    table.start("c")
    for _ in range(60):
        table.poll(20)
    assert table.named("step-failed") == ["c"]


def test_stopping_cancels_what_runs_and_what_waits(table: Table) -> None:
    table.start("a", "b")
    table.poll()
    table.start("c")
    table.executor.stop(kill=False)
    assert table.cluster.cancelled == [(["1_0", "1_1"], False)]
    table.tell(1, "step-stopped", "a")
    table.cluster.states["1_1"] = Seen("CANCELLED")
    for _ in range(3):
        table.poll()
    assert sorted(table.named("step-stopped")) == ["a", "b", "c"]
    assert table.cluster.arrays == [["a", "b"]]
    table.executor.close()
    assert table.cluster.cancelled == [(["1_0", "1_1"], False)]  # nothing was left


def test_closing_kills_what_is_left(table: Table) -> None:
    table.start("a")
    table.poll()
    table.tell(1, "step-started", "a")
    table.executor.close()
    assert table.cluster.cancelled == [(["1"], True)]
    assert not list(table.executor.folder.glob("*.jsonl"))


def run(plan: Plan, folder: Path, **options: Any) -> tuple[Runner, Played, list[Event]]:
    """A whole plan on a cluster that works."""
    cluster, events = Played(works=True), list[Event]()
    quick = SlurmOptions(**{"gather": 0.0, "refresh": 0.01, "grace": 1.0, **options})
    runner = Runner(
        plan,
        store=Store(folder / "home"),
        executor=lambda: SlurmExecutor(folder / "slurm", quick, cluster=cluster),
        pins=NoPins(),
        logs=folder / "logs",
        emit=events.append,
    )
    runner.run()
    return runner, cluster, events


def test_dependencies_are_respected(tmp_path: Path) -> None:
    graph = {"a": [], "b": [], "c": ["a", "b"], "d": ["c"], "e": ["a"]}
    runner, cluster, _ = run(plan_of_graph(graph), tmp_path)
    assert set(runner.outcome.states.values()) == {"run"}
    order = [id for array in cluster.arrays for id in array]
    assert all(order.index(read) < order.index(id) for id in graph for read in graph[id])
    assert runner.outcome.jobs["d"] == str(len(cluster.arrays))


@pytest.mark.parametrize("most", [1, 4])
def test_a_run_never_has_more_jobs_than_allowed(tmp_path: Path, most: int) -> None:
    graph: dict[str, list[str]] = {f"s{number}": [] for number in range(9)}
    _, _, events = run(plan_of_graph(graph), tmp_path, max_jobs=most)
    flight = peak = 0
    for item in events:
        flight += (item["event"] == "step-submitted") - (item["event"] == "step-done")
        peak = max(peak, flight)
    assert peak == most


def test_a_job_is_submitted_once_others_had_time_to_join_it(tmp_path: Path) -> None:
    table = Table(tmp_path, gather=4.0)
    table.start("a")
    assert table.poll(3.75) == []
    table.start("b")  # it waits no longer for that
    assert table.poll(0.25) != []
    assert table.cluster.arrays == [["a", "b"]]
    table.start("c")
    assert table.poll(3.75) == []
    table.poll(0.25)
    assert table.cluster.arrays == [["a", "b"], ["c"]]


def test_files_are_looked_at_once_an_interval(tmp_path: Path) -> None:
    table = Table(tmp_path, refresh=8.0, gather=0.0)
    table.start("a")
    table.poll(8.0)
    table.tell(1, "progress", "a", done=1, total=2)
    assert table.poll(7.75) == []
    assert [item["event"] for item in table.poll(0.25)] == ["progress"]


@pytest.mark.parametrize(("waited", "ended"), [(20.0, False), (20.25, True)])
def test_outputs_of_another_node_have_their_grace(table: Table, waited: float, ended: bool) -> None:
    table.start("a")
    table.poll()
    table.tell(1, "step-done", "a")
    table.poll()
    assert bool(table.poll(waited)) is ended


@pytest.mark.parametrize(("stopped", "patience"), [(False, 20.0), (True, 5.0)])
def test_a_silent_job_has_its_grace_and_a_stopped_one_a_quarter(
    table: Table, stopped: bool, patience: float
) -> None:
    table.start("a")
    table.poll()
    if stopped:
        table.tell(1, "step-stopped", "a")
    table.cluster.states["1"] = Seen("FAILED")
    table.poll(30.0)  # asked: from now on it is gone
    table.executor._asked = 0.0
    table.poll(patience - 0.25)
    assert table.named("step-failed") == []
    table.executor._asked = 0.0
    table.poll(0.25)
    assert table.named("step-failed") == ["a"]


def test_as_many_jobs_as_allowed_and_no_more(tmp_path: Path) -> None:
    """Those that wait to be submitted count."""
    table, one = Table(tmp_path, max_jobs=2, gather=100.0), plan_of_graph({"x": []}).instances[0]
    assert table.executor.fits(one)
    table.start("a")
    assert table.executor.fits(one)
    table.start("b")
    assert not table.executor.fits(one)
