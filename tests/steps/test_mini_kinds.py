"""The steps of the world of fictional facts: written, pretrained, a checkpoint read as a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import kit.steps
from kit.engine.registry import REGISTRY, ModelInput
from kit.lm.load import load_model, load_tokenizer
from kit.mini.facts import files
from kit.mini.facts.model import Shape, vocabulary
from kit.mini.facts.pretrain import Recipe
from kit.mini.facts.world import make_world
from kit.steps.mini.params import Checkpoint, FactsData, Pretrain
from kit.steps.mini.pretraining import run_checkpoint, run_facts_data, run_pretrain
from tests.engine.conftest import manifest, plan_of
from tests.steps.contexts import FakeContext, Steps

SMALL: dict[str, Any] = {
    "width": 32,
    "layers": 2,
    "heads": 2,
    "feed_forward": 48,
    "steps": 4,
    "introduced": 2,
    "batch": 8,
    "warmup": 1,
    "checkpoints": [0, 2],
}


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    made = Steps(tmp_path_factory.mktemp("steps"), {})
    made.run("data", run_facts_data, FactsData(seed=3))
    return made


@pytest.fixture(scope="module")
def pretrained(steps: Steps) -> FakeContext:
    return steps.run("pretrain", run_pretrain, Pretrain(seed=3, **SMALL), data="data")


def test_the_defaults_are_those_of_the_recorded_recipe() -> None:
    params, recipe, shape = Pretrain(seed=0), Recipe(), Shape()
    for name in ("steps", "introduced", "forget", "batch", "learning_rate", "warmup"):
        assert getattr(params, name) == getattr(recipe, name), name
    for name in ("architecture", "width", "layers", "heads", "feed_forward"):
        assert getattr(params, name) == getattr(shape, name), name


def test_the_data_are_the_world_of_the_seed(steps: Steps) -> None:
    path = steps.done["data"].path
    assert files.read_questions(path, "retain") == files.questions(make_world(3))["retain"]
    kind = REGISTRY.get("mini/facts-data")
    assert {folder.name for folder in path.iterdir()} == set(kind.outputs)


def test_what_the_pretraining_promises_is_written(pretrained: FakeContext) -> None:
    kind = REGISTRY.get("mini/pretrain")
    assert {path.name for path in pretrained.out.iterdir()} == set(kind.outputs)
    kept = sorted(path.name for path in (pretrained.out / "checkpoints").iterdir())
    assert kept == ["step-0", "step-2"]
    training = json.loads((pretrained.out / "training.json").read_text(encoding="utf-8"))
    assert len(training["losses"]) == 4
    assert sorted(training["shares"]) == ["0", "2", "4"]
    assert set(training["shares"]["4"]) == {"forget_judge", "forget_attacker", "retain"}
    assert pretrained.progressed[-1] == (4, 4)


def test_the_models_are_those_of_their_steps(pretrained: FakeContext) -> None:
    first, final = (
        load_model(pretrained.out / folder) for folder in ("checkpoints/step-0", "model")
    )
    moved = {
        name
        for (name, a), b in zip(first.named_parameters(), final.parameters(), strict=True)
        if not torch.equal(a, b)
    }
    everything = {name for name, _ in final.named_parameters()}
    assert everything - moved == {"model.embed_tokens.weight", "lm_head.weight"}
    assert load_tokenizer(pretrained.out / "model").get_vocab() == vocabulary()


def test_canaries_tell_a_model_that_learned_nothing(pretrained: FakeContext) -> None:
    passed = {id: outcome for id, (outcome, _) in pretrained.canaries.items()}
    assert passed == {
        "weights-moved": True,
        "embeddings-frozen": True,
        "retained-is-known": False,
        "compounds-are-known": False,
    }


def test_a_control_is_to_know_nothing_of_compounds(steps: Steps) -> None:
    context = steps.run(
        "control", run_pretrain, Pretrain(seed=3, forget=False, **SMALL), data="data"
    )
    assert context.canaries["compounds-are-not-known"][0]
    assert "compounds-are-known" not in context.canaries


class WithModel(FakeContext):
    """A context whose model is the one that the pretraining wrote."""

    def model(self, name: str) -> ModelInput:
        return ModelInput("pretrain", self.step("pretraining").path / "model", {}, pinned=False)


def _checkpoint(steps: Steps, tmp_path: Path, step: int) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    context = WithModel(out, tmp_path, before={"pretraining": [steps.done["pretrain"]]})
    run_checkpoint(context, Checkpoint(step=step))
    return out / "model"


def test_a_checkpoint_is_a_model_of_its_own(
    steps: Steps, pretrained: FakeContext, tmp_path: Path
) -> None:
    folder = _checkpoint(steps, tmp_path, 2)
    kept = pretrained.out / "checkpoints" / "step-2"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        p.name: p.read_bytes() for p in kept.iterdir()
    }
    load_model(folder)


def test_a_checkpoint_that_was_not_kept(
    steps: Steps, pretrained: FakeContext, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no checkpoint at step 3; kept: 0, 2"):
        _checkpoint(steps, tmp_path, 3)


def test_a_checkpoint_inherits_what_the_pretraining_declares() -> None:
    """Through the planner: whoever attacks a checkpoint knows its chat format and architecture."""
    assert "mini" in kit.steps.__all__
    each = {"each": ["seed"], "version": 1}
    made = manifest(
        axes={"seed": "replicate"},
        steps=[
            {"id": "data", "kind": "mini/facts-data", **each},
            {
                "id": "pretrain",
                "kind": "mini/pretrain",
                **each,
                "inputs": {"data": {"step": "data"}},
            },
            {
                "id": "source",
                "kind": "mini/checkpoint",
                **each,
                "inputs": {"model": {"model": "base"}, "pretraining": {"step": "pretrain"}},
            },
            {
                "id": "attack",
                "kind": "toy/attack",
                **each,
                "inputs": {"victim": {"model": "early"}},
            },
            {
                "id": "table",
                "kind": "toy/table",
                "version": 1,
                "inputs": {"numbers": {"step": "attack"}},
            },
        ],
        profiles={
            "mini": {
                "summary": "small",
                "matrix": {"seed": [0, 1]},
                "models": {"base": {"step": "pretrain"}, "early": {"step": "source"}},
                "set": {
                    "data": {"seed": "${seed}"},
                    "pretrain": {"seed": "${seed}", "architecture": "gpt-neox"},
                    "source": {"step": 200},
                },
            }
        },
    )
    instances = plan_of(made).by_id
    victim = instances["attack[seed=1]"].models["victim"]
    assert victim.attributes == {
        "architecture": "gpt-neox",
        "chat_format": "mini",
        "layers": 4,
        "hidden_size": 128,
    }
    assert instances["source[seed=0]"].key != instances["source[seed=1]"].key
