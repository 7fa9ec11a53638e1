"""The commands of the GitHub workflow, on the template that ``kit new`` writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "reproduce.yml"


def test_the_workflow_calls_the_script_and_says_that_it_has_not_run() -> None:
    text = WORKFLOW.read_text(encoding="utf-8")
    assert "has not run on GitHub yet" in " ".join(text.replace("#", " ").split())
    (job,) = YAML(typ="safe").load(text)["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands[0] == "make setup"
    assert commands[1].endswith('.ci/reproduce "$EXPERIMENT" out')
    assert len(commands) == 2


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "kit"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kit.cli.main "$@"\n')
    script.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KIT_")}
    return kept | {
        "PATH": f"{script.parent}:{kept['PATH']}",
        "PYTHONPATH": str(ROOT),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }


def test_run_verdict_junit_and_summary(tmp_path: Path, environ: dict[str, str]) -> None:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300
        )

    assert call("kit", "new", "paper").returncode == 0
    done = call(str(ROOT / ".ci" / "reproduce"), "./paper/paper.yaml", "out")
    assert (tmp_path / "out" / "junit.xml").is_file(), done.stdout + done.stderr
    (run,) = (tmp_path / "out" / "runs").iterdir()
    assert (run / "report.html").is_file()
    assert '"from_store": 0' in (run / "record.json").read_text()
    summary = (tmp_path / "summary.md").read_text()
    assert "REPRODUCED" in summary
    suites = ElementTree.parse(tmp_path / "out" / "junit.xml").getroot()
    assert len(list(suites.iter("testcase"))) > 0
    assert list(suites.iter("failure")) == []
    assert done.returncode == 0, done.stdout + done.stderr
