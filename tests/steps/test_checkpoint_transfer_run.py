"""A cut of ct-coefficient-grid: the family's real steps, planned and run, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.engine.registry import ModelInput, StepInput
from kit.lm.load import load_model
from kit.mini.facts.files import read_questions
from kit.steps.checkpoint_transfer.evaluation import run_evaluate, run_tabulate
from kit.steps.checkpoint_transfer.maps import run_fit, run_oracle, run_texts
from kit.steps.checkpoint_transfer.params import Evaluate, Fit, Oracle, Tabulate, Texts, Unlearn
from kit.steps.checkpoint_transfer.unlearning import (
    recipe_of,
    run_unlearn,
)
from kit.steps.mini.params import Checkpoint, FactsData, Pretrain
from kit.steps.mini.pretraining import run_checkpoint, run_facts_data, run_pretrain
from tests.steps.contexts import FakeContext

LAYERS = [0, 1]
SMALL: dict[str, Any] = {
    "width": 32,
    "layers": 2,
    "heads": 2,
    "feed_forward": 48,
    "steps": 60,
    "introduced": 10,
    "batch": 16,
    "warmup": 1,
    "checkpoints": [10],
    "learning_rate": 1e-2,
}
ROW = {"id": "ret2-rm5-2", "row": "ret2-rm5", "at": "2"}


class Context(FakeContext):
    """Models are what earlier steps wrote: input name -> step."""

    models: dict[str, Path]

    def model(self, name: str) -> ModelInput:
        return ModelInput(name, self.models[name], {}, pinned=False)


class Family:
    """Runs the steps one after another."""

    def __init__(self, root: Path) -> None:
        self.root, self.done = root, dict[str, StepInput]()

    def run(
        self,
        id: str,
        function: Any,
        params: Any,
        models: dict[str, str] | None = None,
        axes: dict[str, Any] | None = None,
        **inputs: str | list[str],
    ) -> Context:
        out = self.root / id
        out.mkdir()
        before = {
            name: [self.done[one] for one in ([steps] if isinstance(steps, str) else steps)]
            for name, steps in inputs.items()
        }
        context = Context(
            out,
            out,
            before=before,
            axes=axes or {"seed": 1},
            roles={"run": "setting", "seed": "replicate"},
        )
        context.models = {
            name: self.done[step].path / "model" for name, step in (models or {}).items()
        }
        function(context, params)
        self.done[id] = StepInput(id, out, context.axes, {})
        return context


def _unlearn(**changes: Any) -> Unlearn:
    values: dict[str, Any] = {
        "seed": 1,
        "preset": "corrected",
        "retain_coef": 2.0,
        "remove_coef": 5.0,
        "layers": LAYERS,
        "fit_at": "block-output",
        "use_at": "block-output",
        "examples": 64,
        "micro_batch": 16,
        "lora_dropout": 0.0,
        "learning_rate": 1e-3,
    }
    return Unlearn(**{**values, **changes})


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    torch.set_num_threads(1)
    made = Family(tmp_path_factory.mktemp("family"))
    made.run("world", run_facts_data, FactsData(seed=3))
    made.run("pretrain", run_pretrain, Pretrain(seed=3, **SMALL), data="world")
    final = {"model": "pretrain"}
    made.run("checkpoint", run_checkpoint, Checkpoint(step=10), final, pretraining="pretrain")
    texts = Texts(
        seed=3,
        pairs=64,
        fit=60,
        held_out=20,
        most_tokens=64,
        forget_order="shuffled",
    )
    made.run("texts", run_texts, texts, final, world="world")
    pair = {"teacher": "checkpoint", "student": "pretrain"}
    fit = Fit(layers=LAYERS, fit_at="block-output", batch=20)
    made.run("maps", run_fit, fit, pair, texts="texts")
    oracle = Oracle(questions="forget-judge", most_known=0.4)
    made.run("oracle", run_oracle, oracle, pair, maps="maps", questions="world")
    axes = {"run": ROW, "seed": 1}
    made.run("unlearn", run_unlearn, _unlearn(), pair, axes, maps="maps", texts="texts")
    sets = Evaluate(sets=["forget-judge", "retain"])
    for name, model, at in (
        ("evaluate", "unlearn", axes),
        ("original", "pretrain", None),
        ("early", "checkpoint", None),
    ):
        made.run(name, run_evaluate, sets, {"model": model}, at, questions="world")
    made.run(
        "table",
        run_tabulate,
        Tabulate(losses="last-step"),
        unlearned="evaluate",
        trainings="unlearn",
        originals="original",
        teachers="early",
        oracles="oracle",
    )
    return made


def test_the_table_has_the_cells_of_the_grid(family: Family) -> None:
    results = json.loads((family.done["table"].path / "results.json").read_text(encoding="utf-8"))
    cells = {cell["id"]: cell for cell in results["cells"]}
    assert set(cells) == {
        *(f"unlearned/{metric}/ret2-rm5@2" for metric in ("forget-judge", "retain")),
        *(f"unlearned/{metric}/ret2-rm5@2" for metric in ("cb-loss", "retain-kl")),
        *(f"{g}/{m}/baseline" for g in ("original", "teacher") for m in ("forget-judge", "retain")),
        *(f"oracle/forget-judge/block-{block}" for block in LAYERS),
    }
    questions = read_questions(family.done["world"].path, "forget-judge")
    assert cells["original/forget-judge/baseline"]["n"] == len(questions)


def test_a_table_counts_what_the_evaluation_wrote(family: Family) -> None:
    answers = json.loads((family.done["evaluate"].path / "answers.json").read_text("utf-8"))
    results = json.loads((family.done["table"].path / "results.json").read_text("utf-8"))
    cells = {cell["id"]: cell for cell in results["cells"]}
    for name, found in answers.items():
        right = [int(p == a) for p, a in zip(found["picked"], found["answers"], strict=True)]
        assert right == found["right"]
        assert cells[f"unlearned/{name}/ret2-rm5@2"]["k"] == sum(right)
    training = json.loads((family.done["unlearn"].path / "training.json").read_text("utf-8"))
    assert cells["unlearned/cb-loss/ret2-rm5@2"]["value"] == training["last-step"]["remove"]
    assert len(training["remove"]) == training["micro_batches"] == 4
    assert training["optimizer_steps"] == 2


def test_the_unlearned_model_differs_in_its_linear_layers_alone(family: Family) -> None:
    before, after = (
        load_model(family.done[step].path / "model").state_dict()
        for step in ("pretrain", "unlearn")
    )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "_proj.weight" in name}


def test_unlearning_comes_closer_to_the_checkpoint(family: Family) -> None:
    training = json.loads((family.done["unlearn"].path / "training.json").read_text("utf-8"))
    assert training["last-step"]["remove"] < training["first_remove"]
    assert training["finite"]
    assert training["diverged_at"] is None


def test_as_reported_presets_reach_the_recipe() -> None:
    late = recipe_of(_unlearn(preset="v2", fit_at="block-input", use_at=None))
    assert late.use_at == "block-output"
    assert late.fit_at == "block-input"
    assert recipe_of(_unlearn(preset="v1")).on_divergence == "go-on"
    assert recipe_of(_unlearn()).on_divergence == "stop"


def test_more_pairs_than_texts_are_refused(family: Family, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="128 pairs asked of 64 texts"):
        family.run(
            "too-many",
            run_unlearn,
            _unlearn(examples=128),
            {"teacher": "checkpoint", "student": "pretrain"},
            maps="maps",
            texts="texts",
        )
