"""Every number of the log that belongs to an experiment stands in its expectation."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from kit.manifest.catalog import Catalog
from kit.manifest.expectation_types import Expectation
from kit.methods.checkpoint_transfer.gather import Finished, tabulate
from kit.results.plan import StepInstance
from tests.steps.test_kinds import plan

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = ROOT / "docs/methods/checkpoint-transfer.numbers.csv"
EXPERIMENTS = sorted(
    path.stem
    for path in (ROOT / "manifests/checkpoint_transfer").glob("*.yaml")
    if Catalog(ROOT).manifest(path.stem).variant == "as-reported"
)
"""What the log reports; the corrected experiments have no printed numbers."""


def _expected(experiment: str, profile: str) -> Expectation:
    found = Catalog(ROOT).expectation(experiment, profile)
    assert found is not None
    return found


def _rows(experiment: str, kind: str) -> list[dict[str, str]]:
    with NUMBERS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if (row["experiment"], row["kind"]) == (experiment, kind)]


def test_there_are_expectations() -> None:
    with NUMBERS.open(encoding="utf-8", newline="") as file:
        listed = {row["experiment"] for row in csv.DictReader(file)} - {""}
    assert set(EXPERIMENTS) == listed
    assert len(EXPERIMENTS) == 7


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_cells_of_the_log_stand_in_the_expectation_as_printed(experiment: str) -> None:
    cells = {cell.id: cell for cell in _expected(experiment, "paper").cells}
    printed = _rows(experiment, "cell")
    assert printed
    for row in printed:
        cell = cells[row["what"]]
        share = {"percent": 100.0, "fraction": 1.0}.get(cell.unit, 1.0)
        number = float(row["number"])
        if (cell.unit == "percent" and number < 1) or (cell.unit == "fraction" and number > 1):
            number *= 100 if cell.unit == "percent" else 0.01
        assert float(cell.value or "nan") / share == pytest.approx(number / share), row
        assert row["line"] in (cell.place or ""), row


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_claims_of_the_log_stand_in_the_expectation(experiment: str) -> None:
    claims = {claim.id: claim for claim in _expected(experiment, "paper").claims}
    for row in _rows(experiment, "claim"):
        claim = claims[row["what"]]
        assert f"line {row['line']}" in claim.place or f"lines {row['line']}" in claim.place, row


WITH_EXPECTATION = [
    (path.name.split(".")[0], path.name.split(".")[1])
    for path in sorted((ROOT / "expected_results/checkpoint_transfer").glob("*.yaml"))
]
NEVER_MADE = {"cancelled"}
"""A cell of this status belongs to a row that nothing here runs."""


@pytest.mark.parametrize(("experiment", "profile"), WITH_EXPECTATION)
def test_every_expected_cell_can_come_out(experiment: str, profile: str, tmp_path: Path) -> None:
    """The table of stand-in outputs, for every instance of the plan, has just these cells."""
    _, made = plan(experiment, profile, tmp_path)
    table = next(one for one in made.instances if one.step == "table")
    manifest = Catalog(ROOT).manifest(experiment)
    spec = next(step for step in manifest.steps if step.id == "table")

    def finished(name: str) -> list[Finished]:
        source = spec.inputs.get(name)
        if source is None or (source.profiles and profile not in source.profiles):
            return []
        found = []
        for number, one in enumerate(i for i in made.instances if i.step == source.step):
            folder = tmp_path / f"{name}-{number}"
            folder.mkdir()
            _stand_in(one, folder)
            found.append(Finished(one.id, folder, one.axes))
        return found

    made_cells = tabulate(
        unlearned=finished("unlearned"),
        trainings=finished("trainings"),
        originals=finished("originals"),
        teachers=finished("teachers"),
        oracles=finished("oracles"),
        attacks=finished("attacks"),
        roles=dict(manifest.axes),
        losses=table.params["losses"],
        checkpoint=table.params["checkpoint"],
        also=table.params["also"],
        attack_steps=table.params["attack_steps"],
    )[0].cells
    cells = {cell.id for cell in made_cells}
    expected = _expected(experiment, profile).cells
    wanted = {cell.id.split(":")[0] for cell in expected if cell.status not in NEVER_MADE}
    assert wanted <= cells
    if profile == "mini" and not any(one.startswith("attacked/") for one in cells):
        assert wanted == cells


def _stand_in(one: StepInstance, folder: Path) -> None:
    answers = {
        "items": ["a", "b"],
        "right": [1, 0],
        "picked": ["A", "B"],
        "answers": ["A", "A"],
        "probability": 0.5,
    }
    if one.kind == "checkpoint-transfer/unlearn":
        losses = {"remove": 0.5, "retain": 0.1}
        written = {"logged": losses, "last-step": losses, "diverged_at": None}
        counts = {"trained_percent": 1.0, "base_moved": 0, "muon_tensors": 0}
        text = json.dumps(written | counts)
        (folder / "training.json").write_text(text, encoding="utf-8")
        return
    if one.kind == "tampering/attack":
        sets, steps, every = (one.params[k] for k in ("questions", "steps", "measure_every"))
        point = {
            **dict.fromkeys(sets, 0.5),
            "picks": dict.fromkeys(sets, "AB"),
            "probability": dict.fromkeys(sets, 0.5),
        }
        asked = {"items": ["a", "b"], "answers": "AA"}
        written = {
            "points": [[step, point] for step in sorted({*range(0, steps, every), steps})],
            "questions": dict.fromkeys(sets, asked),
        }
        (folder / "trajectory.json").write_text(json.dumps(written), encoding="utf-8")
        return
    made: dict[str, object] = {}
    if one.kind == "checkpoint-transfer/oracle-patch":
        blocks = {str(block): answers for block in range(4)}
        made[one.params["questions"]] = {"blocks": blocks}
    else:
        made = dict.fromkeys(one.params["sets"], answers)
    (folder / "answers.json").write_text(json.dumps(made), encoding="utf-8")
