"""The method by itself, and the whole way from the manifest to a verdict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(FOLDER))

from my_paper.method import attack  # noqa: E402

PROMPTS = [f"prompt {i}" for i in range(200)]


def test_the_defence_stops_attacks_and_starts_none() -> None:
    without = attack(PROMPTS, defence="none", seed=1)
    defended = attack(PROMPTS, defence="ours", seed=1)
    assert all(after <= before for before, after in zip(without, defended, strict=True))
    assert sum(defended) < sum(without)


def test_the_seed_decides_everything() -> None:
    assert attack(PROMPTS, defence="none", seed=2) == attack(PROMPTS, defence="none", seed=2)
    assert attack(PROMPTS, defence="none", seed=2) != attack(PROMPTS, defence="none", seed=3)


def test_an_unknown_defence_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown defence"):
        attack(PROMPTS, defence="theirs", seed=1)


def test_from_the_manifest_to_a_verdict(tmp_path: Path) -> None:
    manifest = str(FOLDER / "my-paper.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "kit.cli.main", "reproduce", manifest],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"KIT_HOME": str(tmp_path / "store")},  # nothing that earlier code made
    )
    assert done.returncode == 0, done.stderr
    (verdict,) = tmp_path.glob("runs/*/verdict.json")
    assert json.loads(verdict.read_text())["verdict"] == "REPRODUCED"
