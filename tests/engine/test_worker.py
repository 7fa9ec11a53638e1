"""Worker processes: what they answer, what they print where, how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from kit.engine.events import STEP_ENDS, Event
from kit.engine.job import Job, make_job
from kit.engine.local import LocalExecutor, WorkerProcess
from kit.engine.process import PR_SET_PDEATHSIG, worker_environment
from kit.engine.store import Store
from tests.engine.conftest import ToyPins, manifest, plan_of

ROOT = str(Path(__file__).parents[2])


def job_of(folder: Path, how: str = "ok", name: str = "f") -> Job:
    """A job of the toy step that ends in many ways."""
    steps = [{"id": name, "kind": "toy/fail", "version": 1}]
    # The flag never exists twice: it only keeps the keys of different names apart.
    profile = {"summary": "s", "set": {name: {"how": how, "flag": str(folder / f"{name}-{how}")}}}
    if how != "ok":
        profile["set"][name]["flag"] = ""  # type: ignore[index]
    plan = plan_of(manifest(steps=steps, results=name, profiles={"mini": profile}))
    return make_job(
        plan,
        plan.instances[0],
        home=folder / "home",
        logs=folder / "logs",
        pins=ToyPins(folder),
        digests={},
    )


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerProcess]:
    environ = worker_environment(os.environ, threads=1, gpus=[])
    made = WorkerProcess(environ, gpus=[], errors=tmp_path / "logs" / "worker-1.log")
    yield made
    made.close()


def answers(worker: WorkerProcess, seconds: float = 30.0) -> list[Event]:
    """Events until the step has ended, or the process has."""
    events: list[Event] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        arrived, ended = worker.receive()
        events += [item for item in arrived if item["event"] != "worker-ready"]
        if ended or any(item["event"] in STEP_ENDS for item in events):
            return events
        time.sleep(0.01)
    raise AssertionError(f"no answer: {events}")


def names(events: list[Event]) -> list[str]:
    return [item["event"] for item in events]


def test_it_does_one_job_after_another(worker: WorkerProcess, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        worker.send(job_of(tmp_path, name=name))
        assert names(answers(worker)) == ["step-started", "step-done"]
    assert worker.child.poll() is None


def test_a_failing_job_does_not_end_it(worker: WorkerProcess, tmp_path: Path) -> None:
    worker.send(job_of(tmp_path, "value"))
    events = answers(worker)
    assert names(events) == ["step-started", "step-failed"]
    failure = events[-1]["failure"]
    assert (failure["type"], failure["message"]) == ("ValueError", "the rank must be positive")
    worker.send(job_of(tmp_path))
    assert names(answers(worker))[-1] == "step-done"


def test_what_steps_print_goes_to_their_own_log(worker: WorkerProcess, tmp_path: Path) -> None:
    for name in ("one", "two"):
        worker.send(job_of(tmp_path, name=name))
        answers(worker)
        assert (tmp_path / "logs" / f"{name}.log").read_text() == "about to ok\n"


def test_a_crash_is_the_end_of_the_pipe(worker: WorkerProcess, tmp_path: Path) -> None:
    worker.send(job_of(tmp_path, "exit"))
    assert names(answers(worker)) == ["step-started"]
    assert worker.child.wait(10) == 7
    assert worker.last_lines() == "about to exit | leaving early"


def test_last_lines_before_the_step_began(worker: WorkerProcess, tmp_path: Path) -> None:
    assert worker.last_lines() == ""
    worker.errors.write_text("\n".join(f"line {n}" for n in range(20)))
    worker.job = job_of(tmp_path)
    assert worker.last_lines(2) == "line 18 | line 19"


def test_sending_to_the_dead_is_noticed_when_reading(worker: WorkerProcess, tmp_path: Path) -> None:
    worker.child.kill()
    worker.child.wait()
    worker.send(job_of(tmp_path))
    assert worker.receive()[1] is True


def test_sigterm_lets_the_step_clean_up(worker: WorkerProcess, tmp_path: Path) -> None:
    worker.send(job_of(tmp_path, "parent"))
    deadline = time.monotonic() + 30
    while not list((tmp_path / "home" / "scratch").glob("*/child")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert list((tmp_path / "home" / "tmp").iterdir())
    worker.signal(signal.SIGTERM)
    assert names(answers(worker))[-1] == "step-stopped"
    assert worker.child.wait(10) == 0
    assert not list((tmp_path / "home" / "tmp").iterdir())


def test_sigterm_ends_an_idle_worker(worker: WorkerProcess) -> None:
    deadline = time.monotonic() + 30
    while not worker.receive()[0]:  # worker-ready
        assert time.monotonic() < deadline
        time.sleep(0.01)
    worker.signal(signal.SIGTERM)
    assert worker.child.wait(10) == 0


def test_sigint_is_the_runs_affair(worker: WorkerProcess, tmp_path: Path) -> None:
    worker.send(job_of(tmp_path))
    answers(worker)
    worker.signal(signal.SIGINT)
    worker.send(job_of(tmp_path, name="after"))
    assert names(answers(worker))[-1] == "step-done"


def test_it_ends_when_its_pipe_does(worker: WorkerProcess) -> None:
    assert worker.child.stdin is not None
    worker.child.stdin.close()
    assert worker.child.wait(20) == -signal.SIGKILL


def test_nothing_in_the_working_directory_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the working directory')")
    monkeypatch.chdir(tmp_path)
    environ = worker_environment(os.environ, threads=1, gpus=[])
    made = WorkerProcess(environ, gpus=[], errors=tmp_path / "logs" / "worker.log")
    try:
        made.send(job_of(tmp_path))
        assert names(answers(made))[-1] == "step-done"
    finally:
        made.close()


def test_closing_asks_nobody(worker: WorkerProcess) -> None:
    assert worker.close() == -signal.SIGKILL


def executor(folder: Path) -> LocalExecutor:
    return LocalExecutor(jobs=2, memory_gb=8, gpus=[], logs=folder / "logs")


def drain(made: LocalExecutor, count: int) -> list[Event]:
    """Events until so many steps have ended."""
    events: list[Event] = []
    deadline = time.monotonic() + 60
    while sum(item["event"] in STEP_ENDS for item in events) < count:
        assert time.monotonic() < deadline
        events += made.poll(0.1)
    return events


def test_the_executor_keeps_workers_and_replaces_the_dead(tmp_path: Path) -> None:
    made = executor(tmp_path)
    try:
        made.start(job_of(tmp_path, name="one"))
        drain(made, 1)
        (first,) = made._idle
        made.start(job_of(tmp_path, name="two"))
        assert made._idle == []
        drain(made, 1)
        assert made._idle == [first]
        made.start(job_of(tmp_path, "kill"))
        (item,) = [one for one in drain(made, 1) if one["event"] == "step-failed"]
        assert "SIGKILL" in item["failure"]["message"]
        assert made._idle == []
        made.start(job_of(tmp_path, name="three"))
        assert drain(made, 1)[-1]["event"] == "step-done"
    finally:
        made.close()
    assert not psutil.pid_exists(first.child.pid)


def test_an_idle_worker_that_died_is_replaced(tmp_path: Path) -> None:
    made = executor(tmp_path)
    try:
        made.start(job_of(tmp_path, name="one"))
        drain(made, 1)
        made._idle[0].child.kill()
        made._idle[0].child.wait()
        made.start(job_of(tmp_path, name="two"))
        assert drain(made, 1)[-1]["event"] == "step-done"
    finally:
        made.close()


# Orphans.


def python(program: str, **options: Any) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": ROOT}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def gone(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel call is Linux's")
def test_a_guarded_command_dies_with_its_parent() -> None:
    """``python -m kit.engine.process ARGS`` keeps its wish through exec."""
    assert PR_SET_PDEATHSIG == 1
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'kit.engine.process', '-c',"
        " 'import time; print(1, flush=True); time.sleep(300)'], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    with python(program) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.Process(pid).cmdline()[1] == "-c"
        parent.kill()
        parent.wait()
        assert gone(pid)


def test_the_end_of_the_pipe_takes_the_group(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time\n"
        "from kit.engine.process import lines_or_death\n"
        "lines = lines_or_death(sys.stdin.buffer)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        "print(lines.get().decode().strip(), child.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    with python(program, stdin=subprocess.PIPE, process_group=0) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write("hello\n")
        parent.stdin.flush()
        word, pid = parent.stdout.readline().split()
        assert word == "hello"
        parent.stdin.close()
        assert parent.wait(20) == -signal.SIGKILL
        assert gone(int(pid))


def test_the_store_is_found_after_a_step_changed_the_directory(tmp_path: Path) -> None:
    assert Store(Path("relative")).home.is_absolute()
    assert Path(job_of(Path("relative")).home).is_absolute()
    assert Path(job_of(Path("relative")).log).is_absolute()
