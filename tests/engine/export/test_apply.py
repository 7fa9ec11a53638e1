"""``apply.sh`` from its first line to the run directory, with processes in place of pods."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kit.engine.drive import Options
from kit.engine.export.k8s import write_k8s
from kit.engine.export.names import plan_name
from kit.engine.export.pods import Cluster
from kit.engine.plan import Plan
from kit.engine.session import Session
from tests.engine.conftest import ToyPins, manifest, plan_of
from tests.engine.export.tools import ROOT, kit_program

KUBECTL = Path(__file__).with_name("kubectl.py")


def apply(plan: Plan, folder: Path) -> subprocess.CompletedProcess[str]:
    script = write_k8s(plan, folder / "k8s", Cluster(image="kit"))
    (folder / "cluster" / "data").mkdir(parents=True, exist_ok=True)
    program = kit_program(folder)
    return subprocess.run(
        [str(script)],
        env={
            **os.environ,
            "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "KUBECTL": f"{sys.executable} {KUBECTL}",
            "KUBE_FOLDER": str(folder / "cluster"),
            "SECONDS_BETWEEN": "0",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def state(plan: Plan, folder: Path, job: str) -> dict[str, Any]:
    path = folder / "cluster" / f"{plan_name(plan)}-{job}.json"
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def test_the_jobs_give_the_run(tmp_path: Path) -> None:
    profile = {
        "summary": "s",
        "matrix": {"seed": [0, 1]},
        "set": {"make": {"seed": "${seed}", "size": 100}},
    }
    plan = plan_of(manifest(profiles={"mini": profile}))
    done = apply(plan, tmp_path)
    assert done.returncode == 0, done.stderr
    name = done.stdout.splitlines()[-1]
    run = Path(name)
    options = Options(jobs=2, runs_dir=tmp_path / "runs")
    other = Session(
        plan, home=tmp_path / "home", pins=ToyPins(tmp_path), options=options, argv=[]
    ).run()
    assert (run / "results.json").read_bytes() == (other / "results.json").read_bytes()
    assert (run / "labels.jsonl").read_bytes() == (other / "labels.jsonl").read_bytes()
    assert (run / "events.jsonl").read_text().count('"step-done"') == 5
    assert state(plan, tmp_path, "step-make")["attempts"] == 2


def failing(flag: str = "") -> Plan:
    steps = [
        {"id": "f", "kind": "toy/fail", "version": 1},
        {"id": "t", "kind": "toy/table", "version": 1, "inputs": {"numbers": {"step": "f"}}},
    ]
    profile = {"summary": "s", "set": {"f": {"how": "value", "flag": flag}}}
    return plan_of(manifest(steps=steps, results="t", profiles={"mini": profile}))


def test_a_failure_is_tried_again(tmp_path: Path) -> None:
    plan = failing(str(tmp_path / "flag"))
    done = apply(plan, tmp_path)
    assert done.returncode == 0, done.stderr
    assert state(plan, tmp_path, "step-f")["attempts"] == 2


def test_a_failed_job_ends_the_script(tmp_path: Path) -> None:
    plan = failing()
    done = apply(plan, tmp_path)
    assert done.returncode == 3
    job = f"{plan_name(plan)}-step-f"
    assert f"error: the Job {job} failed" in done.stderr
    assert f"delete job {job}" in done.stderr
    assert state(plan, tmp_path, "step-f")["attempts"] == 3
    assert not (tmp_path / "cluster" / f"{plan_name(plan)}-step-t.json").exists()


def test_a_job_applied_too_early_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of the script is a convenience; the store's records decide."""
    monkeypatch.setattr("kit.engine.export.k8s.waves", lambda plan: [["t"], ["f"]])
    plan = failing()
    done = apply(plan, tmp_path)
    assert done.returncode == 3
    assert "it reads f, which is not finished" in done.stderr
    assert state(plan, tmp_path, "step-t")["attempts"] == 1  # exit 4 is not tried again
