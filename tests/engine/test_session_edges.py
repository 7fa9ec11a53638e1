"""A run in one process: what it says, records, removes and refuses, at its borders."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kit.engine import blind, session
from kit.engine.hardware import Gpu, cpu_count
from kit.engine.preflight import _other_split
from kit.engine.registry import REGISTRY
from kit.engine.session import Options, Session, collect, complain, new_run_dir, run_steps
from kit.engine.slurm.options import SlurmOptions
from kit.engine.store import Store
from kit.engine.worker import perform
from kit.errors import InvalidInput, Preflight, StepFailed
from kit.results.plan import Plan
from tests.engine import fakes
from tests.engine.conftest import ToyPins, plan_of
from tests.engine.fakes import FakeExecutor
from tests.engine.test_batch import shared
from tests.engine.test_session import failing, record


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> FakeExecutor:
    """Steps run in the process of the test."""
    executor = FakeExecutor()
    executor.expect = lambda instance, work: []  # type: ignore[attr-defined]
    monkeypatch.setattr(fakes, "REGISTRY", REGISTRY)
    monkeypatch.setattr(session, "_executor", lambda options, cards, logs: executor)
    return executor


def sessions(tmp_path: Path, plan: Plan | None = None, **options: Any) -> Session:
    return Session(
        plan or plan_of(),
        home=tmp_path / "home",
        pins=ToyPins(tmp_path / "pins"),
        options=Options(**{"jobs": 2, "runs_dir": tmp_path / "runs", **options}),
        argv=["kit"],
    )


def shown(tmp_path: Path, plan: Plan | None = None, only: Any = None, **options: Any) -> None:
    """Run the steps alone, with no file of events."""
    run_steps(
        plan or plan_of(),
        store=Store(tmp_path / "home"),
        pins=ToyPins(tmp_path / "pins"),  # type: ignore[arg-type]
        options=Options(jobs=2, **options),
        logs=tmp_path / "logs",
        events=None,
        only=only,
    )


def test_leftovers_of_killed_runs_go_with_the_next_run(tmp_path: Path, here: FakeExecutor) -> None:
    left = tmp_path / "home" / "tmp" / f"{'1' * 64}.abcd"
    left.mkdir(parents=True)
    sessions(tmp_path).run()
    assert not left.exists()


def test_a_failed_run_removes_what_its_killed_steps_left(
    tmp_path: Path, here: FakeExecutor
) -> None:
    left = tmp_path / "home" / "tmp" / f"{'1' * 64}.abcd"
    here.before = lambda job: left.mkdir(parents=True)
    with pytest.raises(StepFailed):
        sessions(tmp_path, failing("value")).run()
    assert not left.exists()


@pytest.mark.parametrize("wanted", [False, True])
def test_only_a_blind_run_is_recorded_as_blind(
    tmp_path: Path, here: FakeExecutor, wanted: bool
) -> None:
    seen: list[bool] = []
    here.before = lambda job: seen.append(bool(blind._closed))
    folder = sessions(tmp_path, blind=wanted).run()
    assert record(folder)["blind"] == ({"from_store": 0} if wanted else None)
    assert seen == [wanted] * 7
    assert blind._closed == []
    again = sessions(tmp_path, blind=True).run()
    assert record(again)["blind"] == {"from_store": 7}


def test_the_time_of_a_run_in_milliseconds(
    tmp_path: Path, here: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([10.0, 12.34567])
    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=lambda: next(times)))
    monkeypatch.setattr(session, "utc_now", lambda: "2026-01-01T00:00:00.000Z")
    made = record(sessions(tmp_path).run())
    assert made["seconds"] == 2.346
    assert made["ended"].startswith("2026-01-01T00:00:02.34")


def test_a_run_says_how_it_begins_and_ends(
    tmp_path: Path, here: FakeExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also without a file; states are named in the order of the alphabet."""
    from kit.engine.job import make_job

    plan = plan_of()
    later = plan.by_id["make[seed=2]"]
    job = make_job(
        plan,
        later,
        home=tmp_path / "home",
        logs=tmp_path,
        pins=ToyPins(tmp_path),  # type: ignore[arg-type]
        digests={},
    )
    perform(job, REGISTRY, lambda item: None)
    shown(tmp_path, progress="json")
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    first, last = events[0], events[-1]
    assert (first["event"], first["experiment"], first["profile"]) == ("run-started", "toy", "mini")
    assert first["summary"] == "toy mini, 7 steps, 2 at once"
    assert last["event"] == "run-finished"
    assert list(last["states"].items()) == [("cached", 1), ("run", 6)]
    assert last["summary"] == "1 cached, 6 run"
    assert last["seconds"] == round(last["seconds"], 3)
    names = [item["event"] for item in events]
    assert (names.count("step-done"), names.count("step-cached")) == (6, 1)
    assert "note" not in names


def test_what_is_shown_knows_what_is_done(
    tmp_path: Path, here: FakeExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(tmp_path, progress="plain")
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("[run] finished ")
    assert last.split()[3] == "0.0s"  # nothing is left


def test_some_steps_of_a_plan_alone(
    tmp_path: Path, here: FakeExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(tmp_path, progress="json", only=["make[seed=1]"])
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["summary"] == "toy mini, 1 step, 2 at once"
    assert here.started == ["make[seed=1]"]


@pytest.mark.parametrize("fresh", [False, True])
def test_steps_of_other_code_are_said_before_anything_runs(
    tmp_path: Path,
    here: FakeExecutor,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fresh: bool,
) -> None:
    shown(tmp_path, progress="json")
    capsys.readouterr()
    old = plan_of().instances[:2]
    monkeypatch.setattr(session, "other_code", lambda plan, store, registry: old)
    here.started.clear()
    shown(tmp_path, progress="json", fresh=fresh)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[1]["event"] == "note"
    assert "2 finished steps were made by other code than today's (toy/make)" in events[1]["text"]
    assert ("they are made again" in events[1]["text"]) is fresh
    assert ("--fresh" in events[1]["text"]) is not fresh
    assert here.started == [one.id for one in old] * fresh


def test_names_of_runs_of_one_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = SimpleNamespace(now=lambda zone: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    monkeypatch.setattr(session, "datetime", at)
    names = [new_run_dir(tmp_path, "e", "p").name for _ in range(3)]
    base = "e-p-20260102T030405Z"
    assert names == [base, f"{base}-2", f"{base}-3"]


def test_as_many_names_are_tried_as_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def mkdir(self: Path, **how: Any) -> None:
        if not how:
            tried.append(1)
            raise FileExistsError

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(Preflight, match=f"already {10_000:,} runs called e-p-") as caught:
        new_run_dir(tmp_path, "e", "p")
    assert f"{len(tried):,} runs" in caught.value.what


@pytest.mark.parametrize(
    ("number", "runs", "home", "said"),
    [
        (errno.ENOSPC, 1, 2, "--runs-dir"),
        (errno.ENOSPC, 2, 2, "KIT_HOME"),  # one disk: the store is what grows
        (errno.ENOSPC, 3, 2, "KIT_HOME"),
    ],
)
def test_the_disk_that_has_less_room_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, runs: int, home: int, said: str
) -> None:
    made = sessions(tmp_path)
    made.folder = tmp_path / "runs" / "x"
    monkeypatch.setattr(session, "free", lambda at: runs if at.name == "runs" else home)
    error = made._explained(OSError(number, "No space left on device"))
    assert said in error.next_step
    other = made._explained(OSError(errno.EACCES, "Permission denied"))
    assert "--runs-dir" not in other.next_step


@pytest.mark.parametrize(
    ("missing", "words"),
    [(3, r"not finished: \S+, \S+, \S+$"), (4, r"not finished: \S+, \S+, \S+, \.\.\.$")],
)
def test_what_is_not_finished_is_named_up_to_three(
    tmp_path: Path, here: FakeExecutor, missing: int, words: str
) -> None:
    plan = plan_of()
    shown(tmp_path, only=[one.id for one in plan.instances[: 7 - missing]])
    with pytest.raises(StepFailed) as caught:
        collected(tmp_path, plan)
    assert caught.value.what.startswith(f"{missing} of 7 steps")
    assert re.search(words, caught.value.what)
    assert repr(plan.instances[7 - missing].id) in caught.value.next_step


def collected(tmp_path: Path, plan: Plan) -> Path:
    options = Options(runs_dir=tmp_path / "runs")
    pins: Any = ToyPins(tmp_path)
    return collect(plan, home=tmp_path / "home", pins=pins, options=options, argv=[])


def test_an_edited_plan_is_not_collected(tmp_path: Path, here: FakeExecutor) -> None:
    plan = plan_of()
    shown(tmp_path)
    first = plan.instances[0]
    edited = msgspec.structs.replace(first, params={**first.params, "size": 7})
    other = msgspec.structs.replace(plan, instances=[edited, *plan.instances[1:]])
    with pytest.raises(InvalidInput):
        collected(tmp_path, other)
    assert collected(tmp_path, plan).is_dir()


def test_options_as_they_are_when_nothing_is_said() -> None:
    plain = Options()
    assert plain.recorded() == {"jobs": cpu_count(), "threads": 1}
    for name in ("keep_going", "keep_intermediate", "fresh", "blind"):
        assert getattr(plain, name) is False
    assert Options(jobs=3).at_once == 3
    slurm = Options(jobs=3, slurm=SlurmOptions(max_jobs=9))
    assert slurm.at_once == 9
    assert slurm.recorded()["executor"] == "slurm"


@pytest.mark.parametrize("on_cluster", [False, True])
def test_where_steps_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_cluster: bool) -> None:
    made: list[Mapping[str, Any]] = []
    monkeypatch.setattr(session, "LocalExecutor", lambda **how: made.append(how))
    options = Options(jobs=3, threads=2, slurm=SlurmOptions() if on_cluster else None)
    executor = session._executor(options, {"0": 80.0, "1": 40.0}, tmp_path / "run" / "logs")
    if on_cluster:
        assert executor.threads == 2  # type: ignore[attr-defined]
        assert (tmp_path / "run" / "slurm").is_dir()
    else:
        (how,) = made
        assert (how["jobs"], how["threads"], how["gpus"]) == (3, 2, ["0", "1"])
        assert how["gpu_memory_gb"] == {"0": 80.0, "1": 40.0}


@pytest.mark.parametrize(
    ("changes", "params", "gpus", "offered"),
    [
        ({}, {}, 2, True),
        ({}, {}, 1, True),
        ({}, {}, 0, False),
        ({}, {}, 3, False),  # 64 is no multiple of it
        ({"launch": "worker"}, {}, 2, False),
        ({}, {"global_batch": None}, 2, False),
        ({}, {"micro_batch": None}, 2, False),
    ],
)
def test_another_split_is_offered_where_there_is_one(
    changes: dict[str, Any], params: dict[str, Any], gpus: int, offered: bool
) -> None:
    step = shared().instances[0]
    step = msgspec.structs.replace(step, params={**step.params, **params}, **changes)
    assert (f"--gpus {gpus} shares its batch" in _other_split(step, gpus)) is offered


def test_gpus_of_the_machine_share_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: FakeExecutor
) -> None:
    """A run counts the cards of its machine, a cluster as many as jobs at once."""
    cards = [Gpu(index=str(n), name="Toy", arch="sm_90", memory_gb=80.0) for n in range(3)]
    monkeypatch.setattr(session.hardware, "gpus", lambda: cards)
    seen: list[int] = []
    true: Callable[..., Any] = session.Progress

    def progress(plan: Plan, **how: Any) -> Any:
        seen.append(how["gpus"])
        return true(plan, **how)

    monkeypatch.setattr(session, "Progress", progress)
    shown(tmp_path)
    shown(tmp_path, slurm=SlurmOptions(max_jobs=5))
    assert seen == [3, 5]


def test_no_complaint_of_a_run_that_is_whole() -> None:
    from kit.engine.runner import Outcome
    from kit.errors import Interrupted

    plan = plan_of()
    complain(plan, Outcome(states={"a": "run", "b": "cached"}), "here")
    with pytest.raises(Interrupted, match="0 of 2 steps left"):
        complain(plan, Outcome(states={"a": "run", "b": "cached"}, interrupted=True), "here")
