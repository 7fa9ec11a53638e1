"""A whole miniature experiment through real Snakemake, and the plan of another as a dry run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engine.export.test_snakefile import results, snakemake, started
from tests.engine.export.tools import ROOT, kit_program, tool


@pytest.fixture(autouse=True)
def _real_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KIT_STEPS_MODULES")


def kit(program: Path, home: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        cwd=home.parent,
        env={**os.environ, "KIT_HOME": str(home), "KIT_ROOT": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def steps(results: Path) -> dict[str, Any]:
    return json.loads((results.parent / "record.json").read_text())["steps"]  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_whole_experiment(tmp_path: Path) -> None:
    """Digest by digest the outputs of ``kit run``, and a verdict at the end."""
    tool("snakemake")
    program = kit_program(tmp_path)
    kit(program, tmp_path / "home", "export", "snakemake", "dt-baselines", "-o", "exported")
    done = snakemake(tmp_path / "exported", timeout=3000)
    assert done.returncode == 0, done.stderr
    mine = results(tmp_path / "exported")
    theirs = tmp_path / kit(program, tmp_path / "other", "run", "dt-baselines") / "results.json"
    assert mine.read_bytes() == theirs.read_bytes()
    there = steps(theirs)
    assert started(done) == len(there) + 1
    for id, step in steps(mine).items():
        assert step["key"] == there[id]["key"]
        for name, file in step["outputs"].items():
            assert name == "canaries.json" or file == there[id]["outputs"][name], (id, name)
    kit(program, tmp_path / "home", "verify", str(mine.parent))
    kit(program, tmp_path / "home", "report", str(mine.parent))


@pytest.mark.slow
@pytest.mark.parametrize(("profile", "more"), [("mini", []), ("paper", ["--gpu-arch", "sm_90"])])
def test_a_dry_run_of_tiny_adapt(tmp_path: Path, profile: str, more: list[str]) -> None:
    tool("snakemake")
    program = kit_program(tmp_path)
    options = ["--profile", profile, *more, "-o", "exported"]
    kit(program, tmp_path / "home", "export", "snakemake", "tiny-adapt", *options)
    plan = json.loads((tmp_path / "exported" / "plan.json").read_text())
    done = snakemake(tmp_path / "exported", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert started(done) == len(plan["instances"]) + 1
    gpus = sum(one.get("resources", {}).get("gpus", 0) for one in plan["instances"])
    assert done.stdout.count(" gpu=1,") == gpus
