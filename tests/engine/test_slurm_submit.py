"""From a started step to a process and back, through submitit and commands that play SLURM's."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from kit.engine.slurm import cluster as cluster_module
from kit.engine.slurm.cluster import Cluster, SubmissionRefused, require, submitting
from kit.engine.slurm.task import StepTask
from kit.errors import EXIT_INTERRUPTED, Preflight
from tests.engine import fake_slurm
from tests.engine.test_crash import TIMEOUT, event_count, finish, start, tables, wait_until

submitit = pytest.importorskip("submitit", reason="needs the extra: pip install '.[slurm]'")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The commands on the path; returns the folder where they keep jobs."""
    commands = fake_slurm.install(tmp_path / "fake")
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "fake" / "jobs"


def script(jobs: Path, number: int = 1) -> str:
    return (jobs / f"{number}.sh").read_text()


def events(folder: Path) -> list[dict[str, Any]]:
    (log,) = folder.glob("runs/*/events.jsonl")
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_run_is_the_same_as_on_one_machine(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrays, resources, what is exported, what is left behind; the tables are equal."""
    monkeypatch.setenv("HF_TOKEN", "hf_" + "q" * 30)
    options = ("--seconds", "0", "--parts", "2")
    grid = tmp_path / "slurm"
    folder = finish(grid, *options, "--slurm", "partition=debug", "--slurm", "gpu.qos=high")
    assert tables(folder) == tables(finish(tmp_path / "local", *options))
    assert "#SBATCH --array=0-2%3" in script(slurm)
    assert "#SBATCH --partition=debug" in script(slurm)
    assert "qos" not in script(slurm)
    assert "#SBATCH --requeue" in script(slurm)
    assert "#SBATCH --mem=640MB" in script(slurm)  # 0.1 GB of the plan, with room to spare
    assert "#SBATCH --time=15" in script(slurm)
    assert "export KIT_STEPS_MODULES=tests.engine.toy" in script(slurm)
    # The table is alone. It is the last; which number that is depends on what was ready together.
    last = max(slurm.glob("*.sh"), key=lambda path: int(path.stem))
    assert "--array" not in last.read_text()
    assert "HF_TOKEN" not in (slurm / "1.environment").read_text().split()
    assert "hf_" not in script(slurm)
    names = [item["event"] for item in events(grid) if item.get("step") == "make[seed=1]"]
    assert names[:3] == ["step-submitted", "job-started", "step-started"]
    assert names[-1] == "step-done"
    assert not list(folder.rglob("*.pkl"))
    assert not list(folder.glob("slurm/*.events.jsonl"))
    assert not list((grid / "home" / "locks").iterdir())
    record = json.loads((folder / "record.json").read_text())
    assert record["steps"]["make[seed=2]"]["job"] == "1_2"
    assert record["options"]["executor"] == "slurm"
    assert record["modified"] is False
    assert event_count(grid, "step-submitted") == 7
    cached = finish(grid, *options, "--slurm", "")
    assert tables(cached) == tables(folder)
    assert event_count(grid, "step-submitted") == 7  # what is finished is not submitted again


def test_ctrl_c_cancels_everything(slurm: Path, tmp_path: Path) -> None:
    child = start(tmp_path, "--slurm", "", "--seconds", "30", "--parts", "60")
    assert wait_until(lambda: event_count(tmp_path, "progress") >= 2, 30)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=TIMEOUT)
    assert child.returncode == EXIT_INTERRUPTED, err
    assert {fake_slurm.state(slurm, f"1_{index}")[0] for index in range(3)} == {"CANCELLED"}
    assert event_count(tmp_path, "step-stopped") == 3
    assert not list((tmp_path / "home" / "tmp").iterdir())
    assert wait_until(lambda: not alive(slurm))


def alive(jobs: Path) -> list[str]:
    """Jobs of which a process is left."""
    found = []
    for path in jobs.glob("*.pid"):
        try:
            os.killpg(int(path.read_text()), 0)
        except ProcessLookupError:
            continue
        found.append(path.stem)
    return found


def test_a_killed_job_says_what_slurm_says(slurm: Path, tmp_path: Path) -> None:
    child = start(tmp_path, "--slurm", "", "--seeds", "1", "--seconds", "30", "--parts", "60")
    assert wait_until(lambda: event_count(tmp_path, "progress") >= 1, 30)
    pid = int((slurm / "1.pid").read_text())
    (slurm / "1.state").write_text("OUT_OF_MEMORY 0")
    os.killpg(pid, signal.SIGKILL)
    _, err = child.communicate(timeout=TIMEOUT)
    assert child.returncode == 5
    assert "SLURM job 1 ended before its step did: OUT_OF_MEMORY, on here" in err
    assert "--slurm mem=SIZE" in err
    assert event_count(tmp_path, "step-failed") == 1


def test_sbatch_refuses(slurm: Path, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "logs")
    task = StepTask(b"{}", str(tmp_path / "events"), 1)
    bad = {"time": 5, "additional_parameters": {"partition": "nowhere"}}
    with pytest.raises(SubmissionRefused, match="invalid partition") as caught:
        cluster.submit([task], bad)
    assert not caught.value.transient
    (slurm / "busy").touch()
    with pytest.raises(SubmissionRefused, match="Socket timed out") as caught:
        cluster.submit([task], {"time": 5})
    assert caught.value.transient


def test_nothing_secret_and_nothing_of_another_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "SLURM_JOB_ID", "SLURM_CONF", "SBATCH_PARTITION"):
        monkeypatch.setenv(name, "value")
    with submitting():
        seen = {name for name in os.environ if name.startswith(("HF_TOKEN", "SLURM", "SBATCH"))}
    assert seen == {"SLURM_CONF", "SBATCH_PARTITION"}
    assert os.environ["HF_TOKEN"] == "value"
    assert os.environ["SLURM_JOB_ID"] == "value"


def test_without_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Preflight, match="no sbatch, squeue") as caught:
        require()
    assert "login" in caught.value.why


def test_the_last_file_of_a_job_is_waited_for(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "_LAST_SECONDS", 60.0)
    cluster = Cluster(tmp_path / "logs")
    for name in ("1_0_result.pkl", "1_submitted.pkl", "1_0_log.err", "keep_0_log.err"):
        (cluster.folder / name).touch()
    (cluster.folder / "keep_0_log.err").write_text("words")
    started = time.monotonic()
    cluster.tidy(["1"])
    assert time.monotonic() - started < 30
    assert [path.name for path in cluster.folder.iterdir()] == ["keep_0_log.err"]
    monkeypatch.setattr(cluster_module, "_LAST_SECONDS", 0.3)
    started = time.monotonic()
    cluster.tidy(["never"])
    assert time.monotonic() - started > 0.3
