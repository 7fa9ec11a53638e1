"""The TAR family through the real engine on a tiny model, and what its stages are made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit.methods.tar.stages import divided, simulated
from kit.train.batching import Example

MANIFEST = Path(__file__).resolve().parents[2] / "manifests" / "tar" / "tar-bio.yaml"
METHODS = ("none", "random-mapping", "max-entropy", "rmu", "tar", "never-saw")


def tiny(folder: Path) -> Path:
    """tar-bio with two seeds of a model that learns nothing."""
    manifest = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    profile = manifest["profiles"]["mini"]
    manifest["profiles"] = {"mini": profile}
    profile.pop("resources", None)
    profile["matrix"]["seed"] = [0, 1]
    settings = profile["set"]
    settings["pretrain"] |= {"width": 32, "layers": 2, "heads": 2, "feed_forward": 48}
    settings["pretrain"] |= {"steps": 4, "introduced": 2, "batch": 8, "warmup": 1}
    settings["pretrain"] |= {"checkpoints": [2]}
    settings["early"]["step"] = 2
    for name in ("random-mapping", "max-entropy", "rmu"):
        settings[name] |= {"steps": 2, "batch": 8}
    settings["tar"] |= {"outer_steps": 2, "outer_warmup": 1, "inner_steps": 2, "every": 1}
    settings["attack"] |= {"steps": 4, "batch": 8, "measure_every": 2}
    path = folder / "tar-bio.yaml"
    path.write_text(yaml.safe_dump(manifest), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tar")
    command = [sys.executable, "-m", "kit.cli.main", "--progress", "plain", "run"]
    done = subprocess.run(
        [*command, str(tiny(folder)), "--runs-dir", str(folder / "runs"), "--jobs", "1"],
        capture_output=True,
        text=True,
        env={**os.environ, "KIT_HOME": str(folder / "home")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.splitlines()[-1])
    found: dict[str, Any] = json.loads((run / "results.json").read_text(encoding="utf-8"))
    return found


def test_every_method_is_measured_before_and_after(results: dict[str, Any]) -> None:
    cells = {cell["id"]: cell for cell in results["cells"]}
    for method in METHODS:
        for row in ("before", "after"):
            assert cells[f"all/forget/{row}@{method}"]["n"] == 240
            assert len(cells[f"all/retain/{row}@{method}"]["seeds"]) == 2
        assert cells[f"all/under-attack/forget@{method}"]["trajectory"]


def test_trajectories_have_their_points_and_seeds(results: dict[str, Any]) -> None:
    (series,) = [one for one in results["series"] if one["id"] == "under-attack/all"]
    for method in METHODS:
        curves = series["lines"][f"forget @ {method}"]
        assert [curve["seed"] for curve in curves] == ["0", "1"]
        assert [[point[0] for point in curve["points"]] for curve in curves] == [[0, 2, 4]] * 2


def test_collapse_is_looked_for_in_every_method(results: dict[str, Any]) -> None:
    canaries = {canary["id"]: canary for canary in results["canaries"]}
    for method in METHODS:
        assert canaries[f"picks-are-spread-{method}"]["cells"] == [
            f"all/forget/after@{method}",
            f"all/under-attack/forget@{method}",
        ]


def test_subjects_are_not_shared_between_adversary_and_held_out() -> None:
    texts = [Example(f"compound-{e:02d}-{r}-00", (1, 2), 1) for e in range(8) for r in range(3)]
    parts = divided(texts, 0.5, by="subject", seed=3)
    sides = [{e.id.split("-")[1] for e in side} for side in (parts.adversary, parts.held_out)]
    assert not sides[0] & sides[1]
    assert [len(side) for side in sides] == [4, 4]
    assert parts.adversary != divided(texts, 0.5, by="subject", seed=4).adversary
    with pytest.raises(ValueError, match="leaves a part empty"):
        divided(texts, 0.01, by="subject", seed=3)


def test_adversaries_come_by_name_and_share() -> None:
    made = simulated({"width": 0, "every": None}, ["forget", "retain-then-forget"], [1.0, 3.0])
    assert made["width"] is None
    assert "every" not in made
    assert [(a.name, a.share, a.first) for a in made["adversaries"]] == [
        ("forget", 1.0, None),
        ("retain-then-forget", 3.0, "retain"),
    ]
    with pytest.raises(ValueError, match="2 shares for 1"):
        simulated({}, ["forget"], [1.0, 2.0])
    with pytest.raises(ValueError, match="unknown adversary"):
        simulated({}, ["nobody"], [])
