"""What CONTRIBUTING.md says of adding an experiment and a step kind is so."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from kit.cli.main import run
from kit.engine.registry import load_registry

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_files_that_it_names_are_there() -> None:
    named = re.findall(r"`((?:kit|tests|manifests|expected_results|docs)/[\w./-]+\.\w+)`", PAGE)
    assert len(named) > 8
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_step_kind_that_it_names_is_registered_once() -> None:
    assert "`checkpoint-transfer/oracle-patch`" in PAGE
    kinds = (ROOT / "kit/steps/checkpoint_transfer/maps.py").read_text(encoding="utf-8")
    assert kinds.count('"checkpoint-transfer/oracle-patch"') == 1
    assert "checkpoint-transfer/oracle-patch" in load_registry().names()


def test_an_experiment_is_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sister of refusal-rule: its manifest and its expectation, and nothing else."""
    for folder in ("manifests", "expected_results"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    for old in ("manifests/{}/refusal-rule.yaml", "expected_results/{}/refusal-rule.mini.yaml"):
        source = ROOT / old.format("defensive_tokens")
        text = source.read_text(encoding="utf-8").replace("refusal-rule", "refusal-sister")
        text = re.sub(r"^counterpart:.*\n", "", text, flags=re.MULTILINE)
        text = text.replace("reference/refusal-sister", "reference/refusal-rule")
        made = tmp_path / old.format("defensive_tokens").replace("refusal-rule", "refusal-sister")
        made.write_text(text, encoding="utf-8")
    assert len({path for path in tmp_path.rglob("*") if path.is_file()} - before) == 2
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))
    files = [str(path) for path in tmp_path.glob("*/defensive_tokens/refusal-sister*")]
    assert run(["validate", *files]) == 0
    assert run(["plan", "refusal-sister"]) == 0
    assert run(["list"]) == 0
    out = capsys.readouterr().out
    assert out.count("refusal-sister") >= 2
