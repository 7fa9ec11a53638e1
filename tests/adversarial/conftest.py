"""A repository with one experiment, and a whole run of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adversarial import whole_run


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository, as working directory and ``KIT_ROOT``."""
    root = tmp_path / "repo"
    for name in ("manifests/family", "expected_results/family"):
        (root / name).mkdir(parents=True)
    (root / "manifests" / "pins.yaml").write_text("schema_version: 1\npins: []\n")
    (root / "manifests" / "family" / "made.yaml").write_text("id: made\n")
    (root / "expected_results/family/made.mini.yaml").write_text(whole_run.EXPECTATION)
    monkeypatch.chdir(root)
    monkeypatch.setenv("KIT_ROOT", str(root))
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))
    return root


@pytest.fixture
def run_dir(repo: Path) -> Path:
    """The run."""
    return whole_run.write(repo / "runs" / "made-mini-1")
