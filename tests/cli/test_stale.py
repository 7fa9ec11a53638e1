"""A finished step whose code has changed is said, redone on request, and never mixed in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from kit.cli.main import run
from kit.errors import EXIT_FAILED
from tests.typed import typed

Type = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A paper of one's own, as the template gives it."""
    assert run(["new", str(tmp_path / "paper")]) == 0
    return tmp_path / "paper"


@pytest.fixture
def kit(paper: Path) -> Type:
    """The command line, another process each time, in that folder."""
    return partial(typed, paper)


def last(done: subprocess.CompletedProcess[str]) -> str:
    """The run directory."""
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def states(paper: Path, folder: str) -> dict[str, int]:
    """How many steps of a run were run, and how many cached."""
    steps = json.loads((paper / folder / "record.json").read_text())["steps"].values()
    return {name: sum(s["state"] == name for s in steps) for name in ("run", "cached")}


def test_changed_code_is_said_and_cannot_pass(kit: Type, paper: Path) -> None:
    first = last(kit("run", "./paper.yaml"))
    method = paper / "paper" / "method.py"
    method.write_text(method.read_text().replace('"ours": 0.9', '"ours": 0.8'))
    again = kit("run", "./paper.yaml")
    second = last(again)
    said = again.stderr.index("10 finished steps were made by other code than today's")
    assert said < again.stderr.index("cached")
    assert "(paper/attack): taken as they are; --fresh makes them again" in again.stderr
    assert states(paper, second) == {"run": 0, "cached": 11}
    verdict = kit("verify", second)
    assert "(modified)" in verdict.stdout
    assert "10 finished steps of earlier code" in (paper / second / "verdict.json").read_text()
    explained = kit("verify", second, "--explain").stdout
    assert "modified 10 finished steps of earlier code (" in explained
    refused = kit("reference", "./paper.yaml", second)
    assert refused.returncode == 4
    assert "10 finished steps were made by earlier code (" in refused.stderr

    fresh = kit("run", "./paper.yaml", "--fresh", "--seed", "7")  # nothing of it was there yet
    mixed = kit("reference", "./paper.yaml", first, last(fresh))
    assert mixed.returncode == 4
    assert "steps of paper/attack were made by different code" in mixed.stderr

    redone = kit("run", "./paper.yaml", "--fresh")
    assert "they are made again" in redone.stderr
    assert states(paper, last(redone))["run"] >= 10
    quiet = kit("run", "./paper.yaml")
    assert "other code" not in quiet.stderr
    assert states(paper, last(quiet)) == {"run": 0, "cached": 11}
    kept = kit("reference", "./paper.yaml", last(quiet), last(fresh))
    assert kept.returncode == 0, kept.stderr


def test_records_without_a_digest_stay_readable(kit: Type, paper: Path) -> None:
    last(kit("run", "./paper.yaml"))
    for record in paper.glob(".kit/store/*/*/step.json"):
        step = json.loads(record.read_text())
        assert len(step.pop("code")) == 64
        record.chmod(0o644)
        record.write_text(json.dumps(step))
    again = kit("run", "./paper.yaml", "--fresh")
    assert states(paper, last(again)) == {"run": 0, "cached": 11}
    assert "other code" not in again.stderr


def test_a_failing_step_leaves_its_traceback(kit: Type, paper: Path) -> None:
    method = paper / "paper" / "method.py"
    method.write_text(
        method.read_text().replace("strength = random", "1 / 0  # a slip\n    strength = random")
    )
    done = kit("run", "./paper.yaml", "--jobs", "1")
    assert done.returncode == EXIT_FAILED
    assert "ZeroDivisionError" in done.stderr
    assert "Traceback" not in done.stderr
    log = done.stderr.split("see ")[1].split(";")[0]
    kept = (paper / log).read_text()
    assert "Traceback (most recent call last)" in kept
    assert "1 / 0  # a slip" in kept
    loud = kit("--debug", "run", "./paper.yaml", "--jobs", "1")
    assert "1 / 0  # a slip" in loud.stderr
