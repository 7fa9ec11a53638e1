"""Every TAR experiment at miniature scale, cut to a model that learns nothing.

Does it run, and does its table have the cells that the expectation lists?
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit.manifest.catalog import Catalog
from kit.manifest.load import read_expectation
from tests.steps.test_killed_experiments import finish, newest, start, tables

EXPERIMENTS = (
    "tar-baselines",
    "tar-red-team",
    "tar-benign-finetune",
    "tar-targeted-patching",
    "tar-long-attack",
    "tar-ablations",
    "tar-shuffle-variance",
    "tar-dpo-win-rate",
)
SLOW = ("tar-refusal", "tar-rejected-label")
CUTS = (*EXPERIMENTS, *(pytest.param(id, marks=pytest.mark.slow) for id in SLOW))
ATTACK_STEPS = 4
RUN = [sys.executable, "-m", "kit.cli.main", "--progress", "plain", "run", "--jobs", "1"]


def cut(experiment: str, folder: Path) -> Path:
    """The experiment with one seed of a tiny model, trainings of two steps and attacks of four."""
    source = Catalog().root / "manifests" / "tar" / f"{experiment}.yaml"
    manifest = yaml.safe_load(source.read_text(encoding="utf-8"))
    profile = manifest["profiles"]["mini"]
    manifest["profiles"] = {"mini": profile}
    matrix, settings = profile["matrix"], profile["set"]
    matrix["seed"] = [0]
    matrix["order"] = matrix.get("order", [])[:2]
    profile["matrix"] = {axis: values for axis, values in matrix.items() if values}
    kinds = {step["id"]: step["kind"] for step in manifest["steps"]}
    settings["pretrain"] |= {"width": 32, "layers": 2, "heads": 2, "feed_forward": 48}
    settings["pretrain"] |= {"steps": 4, "introduced": 2, "batch": 8, "warmup": 1}
    settings["pretrain"] |= {"checkpoints": [2]}
    for id, chosen in settings.items():
        if kinds[id] == "tar/safeguard":
            chosen |= {"steps": 2, "batch": 8}
        elif kinds[id] == "tar/train":
            chosen |= {"outer_steps": 1, "outer_warmup": 1}
        elif kinds[id] == "tar/refuse":
            chosen |= {"outer_steps": 4, "outer_warmup": 1, "inner_steps": 2, "every": 2}
            chosen |= {"measure_every": 2}
        elif kinds[id] in ("tar/refusal-safeguard", "tar/label-train"):
            chosen |= {"steps": 2, "blocks": [0]} if "blocks" in chosen else {"steps": 2}
        elif kinds[id].startswith(("tampering/", "tar/answer-")):
            chosen |= {"batch": 8, "measure_every": 2, "steps": ATTACK_STEPS}
        elif kinds[id] == "tar/tabulate" and "steps" in chosen:
            chosen["steps"] = [2, 4][: len(chosen["steps"])]
    for adversary in profile["matrix"].get("adversary", []):
        adversary["warmup"] = min(adversary["warmup"], 1)
    path = folder / f"{experiment}.yaml"
    path.write_text(yaml.safe_dump(manifest), encoding="utf-8")
    return path


@pytest.mark.parametrize("experiment", CUTS)
def test_the_table_has_every_cell_that_is_expected(experiment: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*RUN, str(cut(experiment, tmp_path)), "--runs-dir", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        env={**os.environ, "KIT_HOME": str(tmp_path / "home")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(
        (Path(done.stdout.splitlines()[-1]) / "results.json").read_text(encoding="utf-8")
    )
    made: dict[str, Any] = {cell["id"]: cell for cell in results["cells"]}
    path = Catalog().expectation_path(experiment, "mini")
    assert path is not None
    listed = {cell.id for cell in read_expectation(path, references=False).value.cells}
    # What is asked of a trajectory stands behind a colon; steps were cut with the attacks.
    steps = {"step-80": "step-2", "step-200": "step-4", "step-100": "step-2", "step-500": "step-4"}
    wanted = set()
    for id in listed:
        name = id.split(":")[0]
        for full, short in steps.items():
            name = name.replace(f"/{full}", f"/{short}")
        wanted.add(name)
    assert wanted - made.keys() == set()


@pytest.mark.slow
def test_the_red_team_matrix_goes_on_after_a_kill(tmp_path: Path) -> None:
    """Killed among the attacks and resumed, its tables are those of an undisturbed run."""
    manifest = cut("tar-red-team", tmp_path)
    wanted = tables(finish(manifest, tmp_path / "undisturbed"))
    attacks = 3
    home = tmp_path / "killed"
    child = start(manifest, home)
    try:
        while child.poll() is None and done(home) < attacks:
            time.sleep(0.02)
    finally:
        child.kill()
        child.communicate()
    assert attacks <= done(home) < 22
    assert tables(finish(manifest, home)) == wanted
    # What was finished is not run again.
    assert done(home) <= 22 - attacks


def done(home: Path) -> int:
    """Attacks that are finished."""
    if not list(home.glob("runs/*/events.jsonl")):
        return 0
    events = [one for one in newest(home) if one["event"] == "step-done"]
    return sum(one["step"].startswith("attack[") for one in events)


def test_tar_is_trained_alike_in_every_experiment() -> None:
    catalog = Catalog()

    def recipe(experiment: str) -> dict[str, Any] | None:
        source = catalog.root / "manifests" / "tar" / f"{experiment}.yaml"
        mini = yaml.safe_load(source.read_text(encoding="utf-8"))["profiles"].get("mini", {})
        chosen: dict[str, Any] | None = mini.get("set", {}).get("tar")
        return chosen

    known = recipe("tar-bio")
    assert known is not None
    trained = [id for id in (*EXPERIMENTS, *SLOW, "tar-worst-case") if recipe(id) is not None]
    assert [id for id in trained if recipe(id) != known] == []
    assert len(trained) > 5
