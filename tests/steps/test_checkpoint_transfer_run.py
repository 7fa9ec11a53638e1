"""A cut of ct-coefficient-grid: the family's real steps, planned and run, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.engine.registry import ModelInput, PinInput, StepInput
from kit.lm.load import load_model
from kit.methods.checkpoint_transfer.affine import AffineMap
from kit.methods.checkpoint_transfer.affine_files import load_maps, save_maps
from kit.methods.checkpoint_transfer.answers import NOT_FINITE
from kit.mini.facts.files import read_questions
from kit.steps.checkpoint_transfer.evaluation import run_attack_data, run_evaluate, run_tabulate
from kit.steps.checkpoint_transfer.maps import run_fit, run_oracle, run_targets, run_texts
from kit.steps.checkpoint_transfer.params import (
    AttackData,
    Evaluate,
    Fit,
    Oracle,
    RandomInit,
    Tabulate,
    Targets,
    Texts,
    Unlearn,
)
from kit.steps.checkpoint_transfer.unlearning import recipe_of, run_random_init, run_unlearn
from kit.steps.mini.params import Checkpoint, FactsData, Pretrain
from kit.steps.mini.pretraining import run_checkpoint, run_facts_data, run_pretrain
from kit.steps.tampering.kinds import run_attack
from kit.steps.tampering.params import Attack
from kit.train.errors import TrainingDiverged
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
        self.pins: dict[str, PinInput] = {}

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
            self.root / f"{id}-scratch",
            self.pins,
            before=before,
            axes=axes or {"seed": 1},
            roles=dict.fromkeys(("run", "victim", "attack"), "setting") | {"seed": "replicate"},
        )
        context.models = {
            name: self.done[step].path / "model" for name, step in (models or {}).items()
        }
        context.scratch.mkdir()
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


def test_a_step_that_is_stopped_goes_on_to_the_same_model(family: Family, tmp_path: Path) -> None:
    pair = {"teacher": "checkpoint", "student": "pretrain"}
    whole = family.run("whole", run_unlearn, _unlearn(), pair, maps="maps", texts="texts")

    class Stop(BaseException):
        pass

    stopped = Context(
        tmp_path / "out", tmp_path / "scratch", before={**whole.before}, axes=whole.axes
    )
    stopped.models = whole.models
    stopped.progress = _raiser(Stop)  # type: ignore[method-assign]
    for folder in (stopped.out, stopped.scratch):
        folder.mkdir()
    with pytest.raises(Stop):
        run_unlearn(stopped, _unlearn(save_every=1))
    assert not list(stopped.out.iterdir())
    again = Context(stopped.out, stopped.scratch, before=stopped.before, axes=stopped.axes)
    again.models = stopped.models
    run_unlearn(again, _unlearn(save_every=1))
    assert [done for done, _ in again.progressed] == [2]
    assert _bytes(again.out) == _bytes(whole.out)


def _raiser(error: type[BaseException]) -> Any:
    def progress(done: int, total: int, unit: str) -> None:
        # The first step's checkpoint is written after it is reported: stop in the second.
        if done == 2:
            raise error

    return progress


def _bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".safetensors", ".json") and path.name != "canaries.json"
    }


def test_kept_targets_give_the_same_training(family: Family) -> None:
    pair = {"teacher": "checkpoint", "student": "pretrain"}
    params = Targets(
        layers=LAYERS,
        fit_at="block-output",
        use_at="block-output",
        pairs=64,
        uses=3,
        budget_gb=0.002,
    )
    kept = family.run("targets", run_targets, params, pair, maps="maps", texts="texts")
    counts = json.loads((kept.out / "kept.json").read_text("utf-8"))
    assert counts["retain"] == 64
    assert 0 < counts["forget"] <= 64
    family.run(
        "with-kept", run_unlearn, _unlearn(), pair, maps="maps", texts="texts", targets="targets"
    )
    plain, with_kept = (
        json.loads((family.done[step].path / "training.json").read_text("utf-8"))
        for step in ("unlearn", "with-kept")
    )
    assert with_kept["remove"] == pytest.approx(plain["remove"], rel=1e-4)
    assert with_kept["retain"] == pytest.approx(plain["retain"], rel=1e-2, abs=1e-6)


def test_kept_targets_of_other_layers_are_refused(family: Family) -> None:
    pair = {"teacher": "checkpoint", "student": "pretrain"}
    params = Targets(
        layers=[1], fit_at="block-output", use_at="block-output", pairs=64, uses=2, budget_gb=1
    )
    family.run("targets-of-one", run_targets, params, pair, maps="maps", texts="texts")
    with pytest.raises(ValueError, match="belong to another recipe"):
        family.run(
            "wrong-kept",
            run_unlearn,
            _unlearn(),
            pair,
            maps="maps",
            texts="texts",
            targets="targets-of-one",
        )


def test_corrected_stops_and_reported_without_finite_weights_is_said_to_be_so(
    family: Family,
) -> None:
    pair = {"teacher": "checkpoint", "student": "pretrain"}
    wild: dict[str, Any] = {"full_rank": True, "learning_rate": 1e30, "retain_coef": 0.0}
    with pytest.raises(TrainingDiverged, match="step"):
        family.run("wild", run_unlearn, _unlearn(**wild), pair, maps="maps", texts="texts")
    axes = {"run": {"id": "wild", "row": "wild"}, "seed": 1}
    broken = _unlearn(**wild, preset="v1")
    family.run("broken", run_unlearn, broken, pair, axes, maps="maps", texts="texts")
    training = json.loads((family.done["broken"].path / "training.json").read_text("utf-8"))
    assert training["finite"] is False
    assert training["diverged_at"] is not None
    sets = Evaluate(sets=["forget-judge"])
    family.run("asked", run_evaluate, sets, {"model": "broken"}, axes, questions="world")
    asked = json.loads((family.done["asked"].path / "answers.json").read_text("utf-8"))
    assert asked == {"forget-judge": {NOT_FINITE: True}}
    family.run("broken-table", run_tabulate, Tabulate(losses="last-step"), unlearned="asked")
    results = json.loads((family.done["broken-table"].path / "results.json").read_text("utf-8"))
    (cell,) = results["cells"]
    assert cell["id"] == "unlearned/forget-judge/wild"
    assert "not finite" in cell["not_run"]


def test_both_scorers_answer_alike(family: Family) -> None:
    names = ["forget-judge", "retain"]
    for scorer in ("kit", "lm-eval"):
        params = Evaluate(sets=names, scorer=scorer, fraction=0.2)  # type: ignore[arg-type]
        family.run(scorer, run_evaluate, params, {"model": "pretrain"}, questions="world")
    kit, harness = (
        json.loads((family.done[scorer].path / "answers.json").read_text("utf-8"))
        for scorer in ("kit", "lm-eval")
    )
    for name in names:
        assert harness[name].pop("probability") == pytest.approx(
            kit[name].pop("probability"), abs=1e-5
        )
    assert kit == harness


def test_an_attack_is_watched_and_becomes_cells(family: Family) -> None:
    model = {"model": "pretrain"}
    data = AttackData(seed=5, documents=40, most_tokens=6, most_pieces=2)
    written = family.run("attack-data", run_attack_data, data, model, world="world")
    pieces = [
        json.loads(line)
        for line in (written.out / "texts/attacker.jsonl").read_text("utf-8").splitlines()
    ]
    assert len(pieces) > 40
    assert max(len(piece["ids"]) for piece in pieces) == 6
    family.run("random", run_random_init, RandomInit(seed=1), model)
    attack = Attack(
        seed=1,
        optimizer="adamw",
        learning_rate=1e-3,
        steps=4,
        batch=4,
        data=["attacker"],
        schedule="linear",
        clip=1.0,
        measure_every=2,
        questions=["forget-judge", "retain"],
        seldom=["retain", "trained"],
    )
    axes = {"victim": {"id": "random"}, "attack": {"id": "short", "at": "short"}, "seed": 1}
    family.run("attack", run_attack, attack, {"model": "random"}, axes, data="attack-data")
    made = family.run(
        "attack-table",
        run_tabulate,
        Tabulate(losses="last-step", attack_steps=[2]),
        attacks="attack",
    )
    results = json.loads((made.out / "results.json").read_text("utf-8"))
    cells = {cell["id"]: cell for cell in results["cells"]}
    points = {f"@short@{name}" for name in ("step-0", "step-2", "end")}
    assert {f"attacked/forget-judge/random{at}" for at in points} <= set(cells)
    assert "attacked/forget-judge-under-attack/random@short" in cells
    found = json.loads((family.done["attack"].path / "trajectory.json").read_text("utf-8"))
    first = found["points"][0][1]["picks"]["forget-judge"]
    right = sum(
        a == b for a, b in zip(first, found["questions"]["forget-judge"]["answers"], strict=True)
    )
    assert cells["attacked/forget-judge/random@short@step-0"]["k"] == right
    probability = cells["attacked/forget-judge-probability/random@short@step-0"]["value"]
    assert probability == pytest.approx(0.25, abs=0.05)
    with pytest.raises(ValueError, match="attack step 3 was not measured"):
        family.run(
            "no-step",
            run_tabulate,
            Tabulate(losses="last-step", attack_steps=[3]),
            attacks="attack",
        )


def test_published_maps_load_by_pin(family: Family) -> None:
    pair = {"teacher": "checkpoint", "student": "pretrain"}
    folder = family.done["maps"].path / "maps"
    family.pins = {"published_maps": PinInput("maps", folder, {})}
    try:
        family.run("by-pin", run_unlearn, _unlearn(), pair, texts="texts")
        assert _bytes(family.done["by-pin"].path) == _bytes(family.done["unlearn"].path)
        with pytest.raises(ValueError, match="not both"):
            family.run("both", run_unlearn, _unlearn(), pair, maps="maps", texts="texts")
    finally:
        family.pins = {}


def test_maps_of_another_width_and_layers_beyond_depth_are_refused(
    family: Family, tmp_path: Path
) -> None:
    pair = {"teacher": "checkpoint", "student": "pretrain"}
    with pytest.raises(ValueError, match="layer 7 of a model with layers 0 to 1"):
        family.run("deep", run_unlearn, _unlearn(layers=[0, 7]), pair, maps="maps", texts="texts")
    fit = Fit(layers=[5], fit_at="block-output", batch=20)
    with pytest.raises(ValueError, match="block 5"):
        family.run("deep-fit", run_fit, fit, pair, texts="texts")
    maps = load_maps(family.done["maps"].path / "maps")
    wide = {block: AffineMap(torch.eye(48), torch.zeros(48)) for block in maps}
    save_maps(tmp_path / "wide", wide, alpha=0.01, provenance={}, fit={}, held_out={})
    family.pins = {"published_maps": PinInput("maps", tmp_path / "wide", {})}
    try:
        with pytest.raises(ValueError, match="48 to 48 wide, the model 32"):
            family.run("wide", run_unlearn, _unlearn(), pair, texts="texts")
    finally:
        family.pins = {}


def test_documents_without_their_column_are_refused(family: Family, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"title": "a", "body": "b"}\n', encoding="utf-8")
    pin = PinInput("documents", tmp_path, {})
    family.pins = {"forget": pin, "retain": pin}
    texts = Texts(seed=1, pairs=1, fit=1, held_out=1, most_tokens=8, forget_fields=["text"])
    try:
        with pytest.raises(ValueError, match="has no column 'text'; there: title, body"):
            family.run("no-column", run_texts, texts, {"model": "pretrain"})
    finally:
        family.pins = {}
