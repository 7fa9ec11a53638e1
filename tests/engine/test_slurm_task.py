"""Inside a job: the step is run, watched, stopped and handed back; everything is told in a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.engine import hardware
from kit.engine.environment import this_machine
from kit.engine.events import read_events
from kit.engine.job import Job, make_job
from kit.engine.local import LocalExecutor
from kit.engine.slurm import task as task_module
from kit.engine.slurm.task import StepTask, check
from kit.errors import Preflight
from tests.engine.conftest import ToyPins, manifest, plan_of
from tests.engine.test_batch import shared
from tests.engine.test_crash import wait_until
from tests.engine.test_launch import GPUS

PROGRAM = """
import sys
from pathlib import Path
from kit.engine.slurm.task import StepTask
StepTask(Path(sys.argv[1]).read_bytes(), sys.argv[2], 1)()
"""


def task_of(folder: Path, kind: str = "toy/make", **params: Any) -> StepTask:
    """A job of one toy step."""
    profile = {"summary": "s", "set": {"f": params}}
    steps = [{"id": "f", "kind": kind, "version": 2 if kind == "toy/make" else 1}]
    plan = plan_of(manifest(steps=steps, results="f", profiles={"mini": profile}))
    job = make_job(
        plan,
        plan.instances[0],
        home=folder / "home",
        logs=folder / "logs",
        pins=ToyPins(folder),
        digests={},
    )
    return StepTask(msgspec.json.encode(job), str(folder / "events"), 1)


def started(task: StepTask, folder: Path, **environ: str) -> subprocess.Popen[bytes]:
    """The task in a process, as in a job."""
    (folder / "job").write_bytes(task.job)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder / "job"), task.events],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environ},
    )


def names(task: StepTask) -> list[str]:
    path = Path(task.events)
    return [item["event"] for item in read_events(path)] if path.exists() else []


def test_a_step_is_done_and_everything_is_told(tmp_path: Path) -> None:
    task = task_of(tmp_path, seed=1)
    slurm = {"SLURM_JOB_ID": "77", "SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "7"}
    child = started(task, tmp_path, **slurm, SLURM_RESTART_COUNT="1")
    assert child.wait(60) == 0
    first, *_, last = read_events(Path(task.events))
    assert (first["event"], first["job"], first["restarts"]) == ("job-started", "70_7", 1)
    assert last["event"] == "step-done"
    assert not list((tmp_path / "home" / "locks").iterdir())
    assert not (tmp_path / "logs").exists() or not list((tmp_path / "logs").iterdir())


def test_sigterm_stops_the_step_and_keeps_its_checkpoints(tmp_path: Path) -> None:
    task = task_of(tmp_path, seed=1, seconds=30.0, parts=300)
    child = started(task, tmp_path)
    assert wait_until(lambda: "progress" in names(task), 30)
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 0
    assert names(task)[-1] == "step-stopped"
    assert list((tmp_path / "home" / "scratch").glob("*/part-*"))
    assert not list((tmp_path / "home" / "tmp").iterdir())


def test_sigterm_before_the_step_began(tmp_path: Path) -> None:
    """A worker that is still starting dies of the signal; the step is stopped, not failed."""
    task = task_of(tmp_path, seed=1, seconds=30.0, parts=300)
    child = started(task, tmp_path)
    assert wait_until(lambda: "job-started" in names(task), 30)
    child.send_signal(signal.SIGTERM)
    child.wait(60)
    assert names(task)[-1] == "step-stopped"
    assert "step-failed" not in names(task)


@pytest.mark.parametrize("heard", ["SIGTERM", "time limit"])
@pytest.mark.parametrize("moment", ["_started", "check"])
def test_a_signal_that_comes_before_the_step_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, heard: str
) -> None:
    """The job would run on into its limit, or through a preemption, and lose what it did."""
    task, before = task_of(tmp_path, seed=1, seconds=30.0), signal.getsignal(signal.SIGTERM)
    original = getattr(task_module, moment)

    def signalled(*given: Any) -> Any:
        if heard == "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            pytest.importorskip("submitit", reason="needs the extra: pip install '.[slurm]'")
            assert task.checkpoint().function.__getstate__() == task.__getstate__()
        return original(*given)

    monkeypatch.setattr(task_module, moment, signalled)
    try:
        task()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert names(task)[-1] == "step-stopped"
    assert names(task).count("step-stopped") == 1
    assert "step-started" not in names(task)


def test_a_signal_while_the_step_is_started_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, before = task_of(tmp_path, seed=1, seconds=30.0), signal.getsignal(signal.SIGTERM)
    start = LocalExecutor.start

    def signalled(self: LocalExecutor, job: Job) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        start(self, job)

    monkeypatch.setattr(LocalExecutor, "start", signalled)
    try:
        task()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert names(task)[-1] == "step-stopped"
    assert "step-done" not in names(task)


def test_a_killed_worker_is_told(tmp_path: Path) -> None:
    task = task_of(tmp_path, "toy/fail", how="kill")
    assert started(task, tmp_path).wait(60) == 0
    *_, last = read_events(Path(task.events))
    assert last["event"] == "step-failed"
    assert "SIGKILL" in last["failure"]["message"]


def test_checkpoint_stops_the_step_and_gives_the_same_task_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit", reason="needs the extra: pip install '.[slurm]'")
    task, before = (
        task_of(tmp_path, seed=1, seconds=60.0, parts=600),
        signal.getsignal(signal.SIGTERM),
    )
    again: list[Any] = []

    def preempt(self: LocalExecutor, seconds: float) -> list[Any]:
        found = poll(self, seconds)
        if any(item["event"] == "progress" for item in found) and not again:
            again.append(task.checkpoint())  # as submitit's signal handler does
            raise SystemExit(1)
        return found

    poll = LocalExecutor.poll
    monkeypatch.setattr(LocalExecutor, "poll", preempt)
    try:
        with pytest.raises(SystemExit):
            task()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert names(task)[-1] == "step-stopped"
    assert again[0].function.__getstate__() == task.__getstate__()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("Job not requeued because: timed-out too many times.", "reached its time limit again"),
        ("Job not requeued because: something else.", "something else"),
    ],
)
def test_no_more_requeues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, told: str
) -> None:
    """submitit raises inside the running step when a job may not be requeued once more."""

    class UncompletedJobError(RuntimeError):
        pass

    def refuse(self: LocalExecutor, seconds: float) -> list[Any]:
        raise UncompletedJobError(words)

    monkeypatch.setattr(LocalExecutor, "poll", refuse)
    task, before = task_of(tmp_path, seed=1), signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(UncompletedJobError):
            task()
    finally:
        signal.signal(signal.SIGTERM, before)
    *_, last = read_events(Path(task.events))
    assert last["event"] == "step-failed"
    assert told in last["failure"]["message"]


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of two GPUs of sm_90."""
    monkeypatch.setattr(hardware, "_nvidia_smi", lambda: GPUS)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("KIT_GPU_ARCH", raising=False)


@pytest.mark.usefixtures("node")
def test_a_node_that_fits() -> None:
    check(shared(gpus=2, accumulation=4, machine=this_machine()).instances[0])


@pytest.mark.usefixtures("node")
def test_a_job_with_too_few_gpus() -> None:
    with pytest.raises(Preflight, match=r"needs 4 GPUs, this machine has 2") as told:
        check(shared(gpus=4, accumulation=2, machine=this_machine()).instances[0])
    assert "--slurm gpu.gres" in told.value.next_step


@pytest.mark.usefixtures("node")
def test_a_node_with_other_gpus() -> None:
    planned = this_machine()
    gpus = [msgspec.structs.replace(gpu, arch="sm_80") for gpu in planned.gpus]
    planned = msgspec.structs.replace(planned, gpus=gpus)
    with pytest.raises(Preflight, match=r"gpu_arch sm_80 \(here sm_90\)") as told:
        check(shared(gpus=1, accumulation=8, machine=planned).instances[0])
    assert "gpu.constraint" in told.value.next_step
    assert "KIT_GPU_ARCH=sm_90" in told.value.next_step


@pytest.mark.usefixtures("node")
def test_an_instance_of_another_library_version() -> None:
    one = shared(gpus=1, accumulation=8, machine=this_machine()).instances[0]
    one = msgspec.structs.replace(one, environment={**one.environment, "torch": "0.0"})
    with pytest.raises(Preflight, match=r"made for torch 0\.0"):
        check(one)
