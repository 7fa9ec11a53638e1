"""What make hands to the runner, and that a dry run runs nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUNNER = """#!/bin/sh
echo "$@" > ran
echo "$RUNNER $TARGET" >> ran
"$MAKE" --version >> ran
"""


MANIFEST = """id: some-thing
profiles:
  mini:
    summary: small
  paper:
    summary: large
    gpu: true
  mine:
    gpu: false
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Makefile with a runner that only writes down how it was called."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    runner = tmp_path / "requirements" / "runner.sh"
    runner.parent.mkdir()
    runner.write_text(RUNNER)
    shutil.copy(ROOT / "requirements" / "target.py", runner.parent)
    manifest = tmp_path / "manifests" / "family" / "some-thing.yaml"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(MANIFEST)
    runner.chmod(0o755)
    return tmp_path


def make(folder: Path, *arguments: str) -> str:
    # `make test` tells what it starts that they are parts of it; these are not.
    outside = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(
        ["make", *arguments], cwd=folder, capture_output=True, text=True, check=True, env=outside
    )
    return done.stdout


def test_make_hands_on_what_was_typed(folder: Path) -> None:
    make(folder, "reproduce-some-thing", "PROFILE=paper", "RUNNER=local", "ARGS=--seed 7")
    command, chosen, version = (folder / "ran").read_text().splitlines()[:3]
    assert command == "kit reproduce some-thing --profile paper --seed 7"
    assert chosen == "local gpu"
    assert "Make" in version  # the runner can call make again


@pytest.mark.parametrize(
    ("profile", "target"), [("mini", "cpu"), ("paper", "gpu"), ("mine", "cpu"), ("absent", "cpu")]
)
def test_the_environment_follows_the_profile(folder: Path, profile: str, target: str) -> None:
    make(folder, "reproduce-some-thing", f"PROFILE={profile}", "RUNNER=local")
    assert (folder / "ran").read_text().splitlines()[1] == f"local {target}"


@pytest.mark.parametrize("target", ["reproduce-some-thing", "rehearse-some-thing"])
def test_a_dry_run_runs_nothing(folder: Path, target: str) -> None:
    assert "requirements/runner.sh kit" in make(folder, "-n", target)
    assert not (folder / "ran").exists()


def test_the_newest_run_is_the_one_that_began_last(folder: Path) -> None:
    """Verifying an older one again touches its folder; a rehearsal is no run to verify."""
    kit = folder / "venv" / "bin" / "kit"
    kit.parent.mkdir(parents=True)
    kit.write_text('#!/bin/sh\necho "$@"\n')
    kit.chmod(0o755)
    for name in ("requirements/cpu.txt", "pyproject.toml", "venv/bin/python", "venv/.cpu"):
        (folder / name).touch()
    for stamp in ("20260102T000000Z", "20260102T000000Z-2", "20260101T000000Z"):
        (folder / "runs" / f"some-thing-paper-{stamp}").mkdir(parents=True)
    (folder / "runs" / "some-thing-paper-rehearsal-20260103T000000Z").mkdir()
    said = make(folder, "verify-some-thing", "VENV=venv", "PROFILE=paper", "ARGS=--json")
    assert said.splitlines() == ["verify runs/some-thing-paper-20260102T000000Z-2 --json"]
