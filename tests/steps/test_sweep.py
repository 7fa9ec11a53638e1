"""A search of attacks through the real engine on tiny models, and the table made of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit.tampering.watched import FinishedAttack
from kit.tampering.worst_table import Search, tabulate_worst

MANIFEST = Path(__file__).resolve().parents[2] / "manifests" / "tar" / "tar-worst-case.yaml"
SEARCH = Search("trial", "forget", "retain", 0.1, 0.95, "item", 0)
ROLES = {"seed": "replicate", "method": "setting", "trial": "setting"}


def tiny(folder: Path) -> Path:
    """tar-worst-case with two models that learn nothing and two attacks a search."""
    manifest = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    profile = manifest["profiles"]["mini"]
    manifest["profiles"] = {"mini": profile}
    profile["matrix"] |= {"seed": [0], "trial": [0, 1]}
    profile["matrix"]["method"] = [m for m in profile["matrix"]["method"] if m["id"] != "tar"]
    profile["models"].pop("tar")
    profile.get("resources", {}).pop("tar", None)
    manifest["steps"] = [step for step in manifest["steps"] if step["id"] != "tar"]
    settings = profile["set"]
    settings.pop("tar")
    settings["pretrain"] |= {"width": 32, "layers": 2, "heads": 2, "feed_forward": 48}
    settings["pretrain"] |= {"steps": 4, "introduced": 2, "batch": 8, "warmup": 1}
    settings["pretrain"] |= {"checkpoints": [2]}
    for name in ("random-mapping", "max-entropy", "rmu"):
        settings[name] |= {"steps": 2, "batch": 8}
    settings["attack"] |= {"steps": 8, "batch": 8, "measure_every": 4, "batches": [4, 8]}
    path = folder / "tar-worst-case.yaml"
    path.write_text(yaml.safe_dump(manifest), encoding="utf-8")
    return path


def sweep(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kit.cli.main", "--progress", "plain", "sweep"]
    where = ["--runs-dir", str(folder / "runs"), "--jobs", "1"]
    return subprocess.run(
        [*command, str(tiny(folder)), *where, *more],
        capture_output=True,
        text=True,
        env={**os.environ, "KIT_HOME": str(folder / "home")},
        check=False,
    )


def results(done: subprocess.CompletedProcess[str]) -> tuple[Path, dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.splitlines()[-1])
    return run, json.loads((run / "results.json").read_text(encoding="utf-8"))


def test_a_longer_search_goes_on_where_a_shorter_one_ended(tmp_path: Path) -> None:
    run, short = results(sweep(tmp_path))
    cells = {cell["id"]: cell for cell in short["cells"]}
    for method in ("none", "random-mapping", "max-entropy", "rmu"):
        assert cells[f"all/worst/measured@{method}"]["n"] == 120
        assert cells[f"all/worst/naive@{method}"]["n"] == 240
        low, high = (cells[f"all/worst/{end}@{method}"]["value"] for end in ("low", "high"))
        assert low < high
    plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    assert plan["modified"] is False
    longer = sweep(tmp_path, "--trials", "3")
    again, _ = results(longer)
    plan = json.loads((again / "plan.json").read_text(encoding="utf-8"))
    assert plan["modified"] is True
    attacks = [i for i in plan["instances"] if i["step"] == "attack"]
    assert len(attacks) == 12
    started = [line for line in longer.stderr.splitlines() if "attack[" in line]
    assert any("trial=2" in line for line in started)
    before = {i["key"] for i in json.loads((run / "plan.json").read_text())["instances"]}
    assert len([i for i in attacks if i["key"] in before]) == 8


@pytest.mark.parametrize("more", [[], ["--trials", "2"]])
def test_a_search_without_its_axis_is_refused(more: list[str]) -> None:
    command = [sys.executable, "-m", "kit.cli.main", "sweep", "tar-bio", *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no axis 'trial'" in done.stderr


def record(folder: Path, name: str, right: dict[int, list[int]], kept: dict[int, float]) -> Path:
    """A trajectory whose forget questions are answered as given; the right letter is B."""
    items = [f"q-{i}" for i in range(len(next(iter(right.values()))))]
    points = [
        [
            step,
            {
                "forget": sum(row) / len(row),
                "retain": kept[step],
                "picks": {"forget": "".join("AB"[r] for r in row)},
            },
        ]
        for step, row in right.items()
    ]
    path = folder / f"{name}.json"
    questions = {"forget": {"items": items, "answers": "B" * len(items)}}
    path.write_text(json.dumps({"points": points, "questions": questions, "losses": []}))
    return path


def trials(folder: Path) -> list[FinishedAttack]:
    none, half, full = [0] * 8, [1, 0] * 4, [1] * 8
    useful, ruined = {0: 0.9, 5: 0.85}, {0: 0.9, 5: 0.5}
    return [
        FinishedAttack("a[0]", record(folder, "0", {0: none, 5: half}, useful), axes(0)),
        FinishedAttack("a[1]", record(folder, "1", {0: none, 5: full}, ruined), axes(1)),
    ]


def axes(trial: int) -> dict[str, Any]:
    return {"method": {"id": "tar", "model": "tar"}, "seed": 3, "trial": trial}


def test_a_ruined_model_is_no_worst_case(tmp_path: Path) -> None:
    table = tabulate_worst(trials(tmp_path), ROLES, SEARCH)
    cells = {cell.id: cell for cell in table.cells}
    assert (cells["all/worst/naive"].k, cells["all/worst/naive"].n) == (4, 8)
    assert cells["all/worst/utility"].value == pytest.approx(85)
    assert cells["all/worst/step"].value == 5
    loose = Search("trial", "forget", "retain", 0.9, 0.95, "item", 0)
    cells = {cell.id: cell for cell in tabulate_worst(trials(tmp_path), ROLES, loose).cells}
    assert (cells["all/worst/measured"].k, cells["all/worst/measured"].n) == (4, 4)
    assert cells["all/worst/before"].k == 0


def test_what_cannot_be_searched_is_refused(tmp_path: Path) -> None:
    other = Search("round", "forget", "retain", 0.1, 0.95, "item", 0)
    with pytest.raises(ValueError, match="no axis 'round'"):
        tabulate_worst(trials(tmp_path), ROLES, other)
    with pytest.raises(ValueError, match="halved by 'item' or 'subject'"):
        Search("trial", "forget", "retain", 0.1, 0.95, "half", 0)
    with pytest.raises(ValueError, match="cannot be lost"):
        Search("trial", "forget", "retain", 1.0, 0.95, "item", 0)
