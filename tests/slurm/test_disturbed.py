"""Jobs of toy steps on a real SLURM: requeued, killed, cancelled, out of time, refused."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from kit.errors import EXIT_INTERRUPTED
from tests.engine.test_crash import event_count, finish, start, tables, wait_until
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm
LONG = ("--slurm", "", "--seconds", "6", "--parts", "12")
PATIENCE = 90.0


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_STEPS_MODULES", "tests.engine.toy")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """The tables of a run on this machine, without SLURM."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KIT_STEPS_MODULES", "tests.engine.toy")
        options = ("--seconds", "0", "--parts", "12")
        return tables(finish(tmp_path_factory.mktemp("reference"), *options))


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    """Events of a name, of all runs of a folder."""
    return [
        item
        for path in sorted(folder.glob("runs/*/events.jsonl"))
        for item in map(json.loads, path.read_text().splitlines())
        if item["event"] == name
    ]


def at_work(folder: Path, parts: int = 3) -> Callable[[], bool]:
    """Whether some step has left so many checkpoints."""
    return lambda: len(list((folder / "home" / "scratch").glob(f"*/part-{parts}"))) > 0


def job_of(folder: Path, step: str) -> str:
    """The job that a step was submitted as last."""
    return [str(e["job"]) for e in events(folder, "step-submitted") if e["step"] == step][-1]


def processes_of(job: str) -> list[psutil.Process]:
    """The watching processes of a job (or of all elements of an array)."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
            if "submitit.core._submit" in line and Path(line[0]).name != "srun":
                environ = process.environ()
                array = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
                if job in (environ.get("SLURM_JOB_ID"), "_".join(filter(None, array))):
                    found.append(process)
        except psutil.Error:
            continue
    return found


def test_requeued_in_the_middle_it_goes_on_from_its_checkpoints(
    cluster: Cluster, tmp_path: Path, reference: tuple[bytes, bytes]
) -> None:
    child = start(tmp_path, *LONG)
    assert wait_until(at_work(tmp_path), PATIENCE)
    subprocess.run(["scontrol", "requeue", job_of(tmp_path, "make[seed=1]")], check=True)
    out, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0, err
    assert tables(Path(out.splitlines()[-1])) == reference
    assert [item["step"] for item in events(tmp_path, "step-requeued")] == ["make[seed=1]"]
    again = [item for item in events(tmp_path, "job-started") if item["restarts"]]
    assert [item["step"] for item in again] == ["make[seed=1]"]
    (done,) = [e for e in events(tmp_path, "step-done") if e["step"] == "make[seed=1]"]
    assert done["seconds"] < 6.0  # not all twelve parts a second time


def test_a_killed_job_fails_its_step_and_the_next_run_finishes(
    cluster: Cluster, tmp_path: Path, reference: tuple[bytes, bytes]
) -> None:
    child = start(tmp_path, *LONG, "--keep-going")
    assert wait_until(at_work(tmp_path), PATIENCE)
    job = job_of(tmp_path, "make[seed=0]")
    (watcher,) = processes_of(job)
    workers = watcher.children(recursive=True)
    watcher.kill()
    _, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 5, err
    assert f"SLURM job {job} ended before its step did: FAILED" in err
    assert "killed" in err
    assert "run the same command again" in err
    assert len(events(tmp_path, "step-failed")) == 1
    assert wait_until(lambda: not any(one.is_running() for one in workers))
    assert tables(finish(tmp_path, *LONG)) == reference


def test_cancelled_from_outside(cluster: Cluster, tmp_path: Path) -> None:
    child = start(tmp_path, *LONG, "--seeds", "1")
    assert wait_until(at_work(tmp_path), PATIENCE)
    subprocess.run(["scancel", job_of(tmp_path, "make[seed=0]")], check=True)
    _, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 5
    assert "CANCELLED" in err
    assert "run the same command again" in err


def test_told_that_time_is_up_it_requeues_itself(
    cluster: Cluster, tmp_path: Path, reference: tuple[bytes, bytes]
) -> None:
    """submitit's signal, which SLURM sends before the limit."""
    child = start(tmp_path, *LONG)
    assert wait_until(at_work(tmp_path), PATIENCE)
    job = job_of(tmp_path, "make[seed=2]")
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    out, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0, err
    assert tables(Path(out.splitlines()[-1])) == reference
    assert [item["step"] for item in events(tmp_path, "step-requeued")] == ["make[seed=2]"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_every_job_is_cancelled(
    cluster: Cluster, tmp_path: Path, reference: tuple[bytes, bytes], number: signal.Signals
) -> None:
    child = start(tmp_path, *LONG, "--seeds", "9")
    assert wait_until(at_work(tmp_path), PATIENCE)
    parent = job_of(tmp_path, "make[seed=0]").partition("_")[0]
    child.send_signal(number)
    _, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == EXIT_INTERRUPTED, err
    states = cluster.command("squeue", "-h", "-r", "-t", "all", "-j", parent, "-o", "%T").split()
    assert "CANCELLED" in states
    assert not {"PENDING", "RUNNING"} & set(states)
    assert wait_until(lambda: not cluster.command("squeue", "-h", "-j", parent, "-o", "%T").split())
    assert not processes_of(parent)
    (folder,) = (tmp_path / "runs").iterdir()
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "interrupted"
    assert not list((tmp_path / "home" / "tmp").iterdir())
    assert not list(folder.rglob("*.pkl"))


def test_what_sbatch_refuses(cluster: Cluster, tmp_path: Path) -> None:
    child = start(tmp_path, "--slurm", "partition=nowhere")
    _, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 5
    assert "SLURM does not take the job" in err
    assert "invalid partition" in err.lower()
    assert event_count(tmp_path, "step-started") == 0


def test_no_credential_goes_into_a_job(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "q" * 30)
    child = start(tmp_path, *LONG, "--seeds", "1")
    assert wait_until(at_work(tmp_path, 0), PATIENCE)
    (watcher,) = processes_of(job_of(tmp_path, "make[seed=0]"))
    assert "HF_TOKEN" not in watcher.environ()
    assert "KIT_STEPS_MODULES" in watcher.environ()
    child.communicate(timeout=PATIENCE)


def test_the_record_names_jobs_and_logs(cluster: Cluster, tmp_path: Path) -> None:
    folder = finish(tmp_path, "--slurm", "comment=by hand", "--seconds", "0")
    record = json.loads((folder / "record.json").read_text())
    assert record["options"]["slurm"]["parameters"] == ["comment=by hand"]
    assert record["modified"] is False
    job = record["steps"]["make[seed=1]"]["job"]
    assert re.fullmatch(r"\d+_1", job)
    for name in record["steps"]["make[seed=1]"]["logs"]:
        assert (folder / name).exists()
    assert f"slurm/{job}_0_log.out" in record["steps"]["make[seed=1]"]["logs"]
    shown = cluster.command("scontrol", "show", "job", job)
    assert "Comment=by hand" in shown


def test_max_jobs(cluster: Cluster, tmp_path: Path) -> None:
    folder = finish(tmp_path, "--slurm", "", "--seconds", "0.5", "--seeds", "4", "--max-jobs", "1")
    flight = most = 0
    for line in (folder / "events.jsonl").read_text().splitlines():
        name = json.loads(line)["event"]
        flight += (name == "step-submitted") - (name == "step-done")
        most = max(most, flight)
    assert most == 1
