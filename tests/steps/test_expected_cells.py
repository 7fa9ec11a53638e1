"""Every cell that an expectation names can come out of its experiment's table.

A cell that no run can produce would be ``missing`` for ever, and a claim over it never evaluated.
The table is made here from stand-in files of every upstream step, shaped by the plan.
"""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.evals.refusal import RULES
from kit.manifest.load import load_expectation
from kit.methods.defensive_tokens.gather import StageFolder, Utility, tabulate
from kit.methods.defensive_tokens.prefix_sets import save_sets
from kit.methods.defensive_tokens.stage_numbers import training_facts
from kit.results.plan import Plan, StepInstance
from tests.steps.test_kinds import CATALOG, EXPERIMENTS, PROFILES, plan

FAMILY = [
    id
    for id in EXPERIMENTS
    if any(step.kind == "defensive-tokens/tabulate" for step in CATALOG.manifest(id).steps)
]
"""The other tables are held by tests of their own."""
N = 208
GEOMETRY = (
    *("norm_mean", "norm_min", "norm_max", "norm_l1_mean", "norm_l1_max"),
    *("cosine_native", "cosine_source"),
)
ALIGNMENT = ("rows", "residual", "relative_residual", "distance_from_identity", "mean_trace")


def upstream(made: Plan, one: StepInstance, name: str) -> list[StepInstance]:
    return [made.by_id[id] for id in one.steps[name].instances] if name in one.steps else []


def token_sets(made: Plan, evaluate: StepInstance) -> list[str]:
    names = list(evaluate.params["defences"])
    for one in upstream(made, evaluate, "transferred"):
        names += one.params["sets"]
    for name in ("trained", "control"):
        for one in upstream(made, evaluate, name):
            names += [f"{one.params['label']}-{step}" for step in one.params["checkpoints"]]
    return names


def scores(made: Plan, evaluate: StepInstance, seed: int) -> dict[str, Any]:
    """Label tables of the right shape in which no rate is 0 or 1."""
    flags = [int((i + seed) % 3 == 0) for i in range(N)]
    attacks = dict.fromkeys(evaluate.params["attacks"], flags)
    conditions = [*attacks, "benign"]
    table = {
        "items": [f"i{i}" for i in range(N)],
        "asr": attacks,
        "asr_anywhere": attacks,
        "refusal": dict.fromkeys(RULES, flags),
        "accuracy": dict.fromkeys(conditions, flags) if evaluate.params["accuracy"] else {},
        "lengths": {c: {"mean_tokens": 9.0, "empty": 0, "truncated": 0} for c in conditions},
    }
    return {
        name: table | ({"asr": {a: [1] * N for a in attacks}} if name == "undefended" else {})
        for name in token_sets(made, evaluate)
    }


def stand_in(made: Plan, one: StepInstance, folder: Path, seed: int) -> StageFolder:
    """Files of one finished step."""
    folder.mkdir()
    kind, files = one.kind.split("/")[1], {}
    if kind == "evaluate":
        files["scores.json"] = scores(made, one, seed)
    elif kind == "align":
        facts = dict.fromkeys((*ALIGNMENT, "orthogonality_error"), 0.5)
        spectrum = {"smallest_singular_value": 1.0, "sum_of_singular_values": 9.0}
        files["alignment.json"] = facts | spectrum | {"singular_values": [4.0, 1.0]}
    elif kind == "transfer":
        names = (*one.params["sets"], "native", "source")
        files["geometry.json"] = {name: dict.fromkeys(GEOMETRY, 1.0) for name in names}
    else:
        tokens = {step: torch.ones(5, 8) for step in one.params["checkpoints"]}
        (data,) = upstream(made, one, "data")
        heldout = dict.fromkeys(tokens, 0.5) if data.params["heldout"] else {}
        kinds = dict.fromkeys(("clean", "naive", "ignore", "completion"), 1)
        files["training.json"] = training_facts(
            one.params["label"], [1.0] * 20, tokens, heldout, kinds
        )
        save_sets(
            folder / "prefixes.safetensors",
            {f"{one.params['label']}-{step}": prefix for step, prefix in tokens.items()},
        )
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return StageFolder(one.id, folder, one.axes)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("experiment", FAMILY)
def test_every_expected_cell_can_be_measured(experiment: str, profile: str, tmp_path: Path) -> None:
    path = CATALOG.expectation_path(experiment, profile)
    assert path is not None
    _, made = plan(experiment, profile, tmp_path)
    table, numbers = made.by_id[made.results], count()

    def stages(*names: str) -> list[StageFolder]:
        found = [one for name in names for one in upstream(made, table, name)]
        return [
            stand_in(made, one, tmp_path / f"s{i}", i)
            for i, one in zip(numbers, found, strict=False)
        ]

    asked = table.params
    cells = tabulate(
        evaluations=stages("evaluations"),
        alignments=stages("alignments"),
        transfers=stages("transfers"),
        trainings=stages("trainings", "controls"),
        native=asked["native"],
        published_full=asked["published_full"],
        refusal_rule=asked["refusal_rule"],
        loss_window=asked["loss_window"],
        loss_divisor=asked["loss_divisor"],
        utility=Utility(asked["utility_sets"], asked["utility_not_run"], asked["utility"]),
    ).cells
    there = {cell.id for cell in cells}
    whole = load_expectation(path)
    expected = whole.cells
    # Times come from the run's record; a quoted number without a measurement is not compared.
    asked_for = [c for c in expected if c.status != "quoted" and "/seconds/" not in c.id]
    assert not sorted({cell.id for cell in asked_for} - there)
    assert not sorted(set(whole.present) - there)
    groups = {cell.id.partition("/")[0] for cell in cells if not cell.id.startswith("stats/")}
    table_of = {cell.id: cell for cell in cells}
    for cell in whole.cells:  # what must have labels has them
        if (
            cell.labelled
            and cell.id in there
            and not (cell.id.startswith("all/") and groups > {"all"})
        ):
            found = table_of[cell.id]
            assert all(part.labels for part in found.seeds or [found])
    units = {cell.id: cell.unit for cell in cells}
    assert not [c.id for c in asked_for if units[c.id] != c.unit]
