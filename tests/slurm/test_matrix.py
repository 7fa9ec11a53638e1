"""Seeds x token sets x attacks, each evaluation a job, on a real SLURM, with two jobs disturbed.

With ``KIT_SLURM_RECORD=1`` (``make test-slurm``) the outcome is kept for the documents.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest

from kit.engine.slurm.page import RECORD
from tests.engine.test_crash import tables, wait_until
from tests.slurm.cluster import Cluster
from tests.slurm.test_disturbed import processes_of

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(5400)]
MANIFEST = Path(__file__).with_name("matrix.yaml")
HALF_AN_HOUR = 1800.0


def kit_run(folder: Path, *options: str) -> subprocess.Popen[str]:
    """``kit run`` of the matrix, with a store of its own."""
    line = [sys.executable, "-m", "kit.cli.main", "--progress", "plain", "run", str(MANIFEST)]
    folder.mkdir(exist_ok=True)
    # To a file: a pipe that nobody empties would stop the run.
    with (folder / "progress.txt").open("a") as progress:
        return subprocess.Popen(
            [*line, "--runs-dir", str(folder / "runs"), *options],
            stdout=subprocess.PIPE,
            stderr=progress,
            text=True,
            env={**os.environ, "KIT_HOME": str(folder / "home")},
        )


def seconds_of(folder: Path) -> float:
    return float(json.loads((folder / "record.json").read_text())["seconds"])


def newest(folder: Path) -> list[dict[str, Any]]:
    """Events of the newest run of a folder."""
    logs = sorted(folder.glob("runs/*/events.jsonl"))
    lines = logs[-1].read_text().splitlines() if logs else []
    found = []
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):  # the last one may be half written
            found.append(json.loads(line))
    return found


def running(folder: Path) -> list[tuple[str, str]]:
    """(step, job) of the evaluations at work now, youngest last."""
    jobs: dict[str, str] = {}
    for item in newest(folder):
        step = item.get("step", "")
        if item["event"] == "job-started" and step.startswith("evaluate"):
            jobs[step] = item["job"]
        elif item["event"] in ("step-done", "step-failed"):
            jobs.pop(step, None)
    return list(jobs.items())


def done(folder: Path, count: int) -> Callable[[], bool]:
    """Whether so many evaluations are finished and one is at work."""

    def true() -> bool:
        ended = [item for item in newest(folder) if item["event"] == "step-done"]
        finished = sum(item["step"].startswith("evaluate") for item in ended)
        return finished >= count and bool(running(folder))

    return true


def kill_one(folder: Path) -> tuple[str, str, list[psutil.Process]]:
    """SIGKILL for the process that watches over a running evaluation."""
    for _ in range(200):
        for step, job in reversed(running(folder)):
            watchers = processes_of(job)
            if watchers:
                below = watchers[0].children(recursive=True)
                watchers[0].kill()
                return step, job, below
        time.sleep(0.2)
    raise AssertionError("no running job was found")


def requeue_one(folder: Path) -> str:
    """Have SLURM requeue a running evaluation, as it does with what it preempts."""
    for _ in range(200):
        for step, job in reversed(running(folder)):
            if processes_of(job):
                line = ["scontrol", "requeue", job]
                if subprocess.run(line, capture_output=True, check=False).returncode == 0:
                    return step
        time.sleep(0.2)
    raise AssertionError("no running job was found")


def test_a_disturbed_matrix_ends_as_on_one_machine(cluster: Cluster, tmp_path: Path) -> None:
    """The tables of 60 cells with one job requeued and one killed equal those of a local run."""
    alone, grid = tmp_path / "local", tmp_path / "slurm"
    local = kit_run(alone, "--jobs", "2")
    out, _ = local.communicate(timeout=HALF_AN_HOUR)
    assert local.returncode == 0, (alone / "progress.txt").read_text()[-3000:]
    expected = Path(out.splitlines()[-1])

    options = ("--executor", "slurm", "--slurm", "comment=matrix")
    first = kit_run(grid, *options, "--keep-going")
    assert wait_until(done(grid, 10), HALF_AN_HOUR), (grid / "progress.txt").read_text()[-3000:]
    requeued = requeue_one(grid)
    assert wait_until(done(grid, 20), HALF_AN_HOUR)
    killed, job, below = kill_one(grid)
    out, _ = first.communicate(timeout=HALF_AN_HOUR)
    told = (grid / "progress.txt").read_text()
    assert first.returncode == 5, told[-3000:]
    assert f"SLURM job {job} ended before its step did: FAILED" in told
    assert not any(process.is_running() for process in below)
    counts = Counter(item["event"] for item in newest(grid))
    failed = [item["step"] for item in newest(grid) if item["event"] == "step-failed"]
    assert failed == [killed]
    again = [item["step"] for item in newest(grid) if item["event"] == "step-requeued"]
    assert requeued in again
    jobs = [item["job"] for item in newest(grid) if item["event"] == "step-submitted"]
    arrays = {job.partition("_")[0] for job in jobs if "_" in job}
    assert len(jobs) == 85
    first_seconds = seconds_of(next((grid / "runs").iterdir()))

    second = kit_run(grid, *options)
    out, _ = second.communicate(timeout=HALF_AN_HOUR)
    assert second.returncode == 0, (grid / "progress.txt").read_text()[-3000:]
    folder = Path(out.splitlines()[-1])
    assert tables(folder) == tables(expected)
    states = Counter(
        step["state"] for step in json.loads((folder / "record.json").read_text())["steps"].values()
    )
    assert states == {"cached": 84, "run": 2}  # the killed evaluation and the table
    assert not list(grid.glob("runs/*/slurm/*.pkl"))
    write_record(
        cluster,
        cells=60,
        steps=86,
        jobs=len(jobs) + 2,
        arrays=len(arrays),
        requeued=counts["step-requeued"],
        killed=1,
        local_seconds=round(seconds_of(expected)),
        first_seconds=round(first_seconds),
        second_seconds=round(seconds_of(folder)),
    )


def write_record(cluster: Cluster, **facts: Any) -> None:
    """Keep what was seen, for the documents."""
    if os.environ.get("KIT_SLURM_RECORD") != "1":
        return
    version = re.search(r"[\d.]+", cluster.command("sbatch", "--version"))
    made = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "what": "tests/slurm/test_matrix.py",
        "slurm": version.group() if version else "",
        "submitit": metadata.version("submitit"),
        "python": platform.python_version(),
        "cores": psutil.cpu_count(),
        "declared_cpus": cluster.cpus,
        **facts,
        "tables_equal_local": True,
    }
    path = Path(__file__).parents[2] / RECORD
    path.write_text(json.dumps(made, indent=1) + "\n")
