"""Tables whose numbers say what is not so, with every hash made to fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kit.cli.main import run as kit
from kit.verify.tampered import fit
from tests.adversarial.whole_run import N

Json = dict[str, Any]


def cell(table: Json, id: str) -> Json:
    found: Json = next(one for one in table["cells"] if one["id"] == id)
    return found


def changed(one: Json, value: Callable[[float], float]) -> None:
    """Every replicate of a cell, and its mean."""
    for seed in one["seeds"]:
        seed["value"] = value(seed["value"])
    one["value"] = sum(seed["value"] for seed in one["seeds"]) / len(one["seeds"])


def raised(table: Json, run: Path) -> None:
    changed(cell(table, "far/gap-closed/adapted"), lambda value: value + 0.05)


def percent_for_ratio(table: Json, run: Path) -> None:
    changed(cell(table, "far/gap-closed/adapted"), lambda value: 100 * value)


def maximum_of_nothing(table: Json, run: Path) -> None:
    one = cell(table, "near/asr-max/adapted")
    changed(one, lambda value: 0.0)
    ids = set()
    for seed in one["seeds"]:
        seed["k"] = 0
        ids.add(seed["labels"].partition("#")[2])
    relabel(run, ids, lambda labels: [0] * len(labels))


def one_seed_everywhere(table: Json, run: Path) -> None:
    """Every replicate of each arm is its first one once more."""
    lines = {line["id"]: line for line in read_lines(run)}
    for one in table["cells"]:
        first = one["seeds"][0]
        for seed in one["seeds"][1:]:
            seed |= {name: first[name] for name in ("value", "k", "n")}
            if seed["labels"]:
                source = lines[first["labels"].partition("#")[2]]
                lines[seed["labels"].partition("#")[2]]["labels"] = source["labels"]
        one["value"] = first["value"]
    write_lines(run, list(lines.values()))


def alarm_about_statistics(table: Json, run: Path) -> None:
    alarm = {"id": "lengths", "step": "table", "passed": False, "detail": "none is sane"}
    table["canaries"].append(alarm | {"cells": ["stats/"]})


def read_lines(run: Path) -> list[Json]:
    return [json.loads(line) for line in (run / "labels.jsonl").read_text().splitlines()]


def write_lines(run: Path, lines: list[Json]) -> None:
    """Labels, and the record of the step that wrote them."""
    from tests.adversarial.whole_run import _sha256

    (run / "labels.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    record = json.loads((run / "record.json").read_text())
    record["steps"]["table"]["outputs"]["labels.jsonl"]["sha256"] = _sha256(run / "labels.jsonl")
    (run / "record.json").write_text(json.dumps(record))


def relabel(run: Path, ids: set[str], labels: Callable[[list[int]], list[int]]) -> None:
    lines = read_lines(run)
    for line in lines:
        if line["id"] in ids:
            line["labels"] = labels(line["labels"])
    write_lines(run, lines)


@dataclass(frozen=True)
class Plant:
    """What was changed, and what must come out.

    Attributes:
        edit: Changes the table, and what goes with it in the run directory.
        word: Run verdict.
        says: Part of what is printed.
    """

    edit: Callable[[Json, Path], None]
    word: str
    says: str


PLANTS = [
    Plant(raised, "PARTIALLY", "contradicts its parts: gap_closed of"),
    Plant(percent_for_ratio, "PARTIALLY", "contradicts its parts: gap_closed of"),
    Plant(maximum_of_nothing, "PARTIALLY", "contradicts its parts: max of"),
    Plant(one_seed_everywhere, "INCOMPLETE", "canary duplicate-seed FAILED"),
    Plant(alarm_about_statistics, "PARTIALLY", "canary lengths failed: none is sane"),
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.edit.__name__)
def test_it_is_not_reproduced(
    plant: Plant, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = json.loads((run_dir / "results.json").read_text())
    plant.edit(table, run_dir)
    (run_dir / "results.json").write_text(json.dumps(table))
    fit(run_dir)
    assert kit(["verify", str(run_dir), "--all"]) == 3
    said = capsys.readouterr().out
    assert f"verdict {plant.word}" in said
    assert plant.says in said
    assert "not whole" not in said


def test_an_edited_threshold_of_the_kits_own_expectation_is_said(
    run_dir: Path, repo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from kit.manifest import shipped

    path = repo / "expected_results/family/made.mini.yaml"
    (sums,) = shipped.files(repo).values()
    digest, _, name = sums.strip().partition("  ")
    monkeypatch.setattr(shipped, "_shipped", lambda: {name: digest})
    assert kit(["verify", str(run_dir)]) == 0
    assert "modified" not in capsys.readouterr().out
    path.write_text(path.read_text().replace('value: "0.85"', 'value: "0.5"'))
    assert kit(["verify", str(run_dir)]) == 0
    assert "REPRODUCED (modified)" in capsys.readouterr().out
    overrides = json.loads((run_dir / "verdict.json").read_text())["overrides"]
    assert overrides == ["expected_results/family/made.mini.yaml is not as the kit ships it"]


def test_code_with_uncommitted_changes_is_said(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((run_dir / "record.json").read_text())
    (run_dir / "record.json").write_text(json.dumps(record | {"dirty": True}))
    fit(run_dir)
    assert kit(["verify", str(run_dir)]) == 0
    assert "REPRODUCED (modified)" in capsys.readouterr().out


def test_the_whole_run_has_items(run_dir: Path) -> None:
    assert {len(line["items"]) for line in read_lines(run_dir)} == {N}
