"""Models as inputs: pinned, released, or trained by earlier steps, attacked by one kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.engine.registry import ModelOutput, NoParams, StepKind
from kit.engine.store import Store
from kit.errors import InvalidInput, StepFailed
from kit.manifest.matrix import needed_pins
from kit.manifest.pin_types import Pin
from kit.manifest.types import Manifest
from kit.results.plan import Plan
from tests.engine.conftest import manifest, plan_of
from tests.engine.toy import write_model

PINS = [
    Pin(
        id=id,
        kind="hf-model",
        title=id,
        licence="MIT",
        attributes={"format": format, "architecture": "toy"},
    )
    for id, format in (("base-7b", "llama"), ("released-7b", "chat"))
]
STEPS: list[dict[str, Any]] = [
    # Out of order on purpose: what a step waits for follows from the models it reads.
    {
        "id": "attack",
        "kind": "toy/attack",
        "version": 1,
        "each": ["victim", "seed"],
        "inputs": {"victim": {"model": "${victim}"}},
    },
    {"id": "pretrain", "kind": "toy/pretrain", "version": 1, "profiles": ["mini"]},
    {
        "id": "tune",
        "kind": "toy/train",
        "version": 1,
        "each": ["seed"],
        "inputs": {"model": {"model": "defended"}},
    },
    {
        "id": "defend",
        "kind": "toy/train",
        "version": 1,
        "each": ["seed"],
        "inputs": {"model": {"model": "base"}},
    },
    {"id": "table", "kind": "toy/table", "version": 1, "inputs": {"numbers": {"step": "attack"}}},
]
MODELS = {
    "released": {"pin": "released-7b"},
    "defended": {"step": "defend"},
    "tuned": {"step": "tune"},
}


def experiment(**changes: Any) -> Manifest:
    """Three victims: ``mini`` pretrains its base where ``paper`` pins it."""
    common = {
        "summary": "s",
        "matrix": {"victim": ["base", "released", "tuned"], "seed": [0, 1]},
        "set": {"defend": {"add": "${seed}"}},
    }
    profiles = {
        "mini": {**common, "models": {**MODELS, "base": {"step": "pretrain"}}},
        "paper": {
            **common,
            "pins": {"start": "base-7b"},
            "models": {**MODELS, "base": {"pin": "${pins.start}"}},
        },
    }
    profiles["mini"]["set"] = {**common["set"], "pretrain": {"seed": 5, "format": "mini"}}
    for name, changed in changes.pop("profiles", {}).items():
        profiles[name] = {**profiles[name], **changed}
    return manifest(**{"steps": STEPS, "profiles": profiles, **changes})


def plan(made: Manifest | None = None, profile: str = "mini") -> Plan:
    return plan_of(made or experiment(), profile, pins=PINS)


def steps(**changed: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**step, **changed.get(step["id"], {})} for step in STEPS]


def test_the_same_kind_reads_pins_and_steps() -> None:
    made = plan().by_id
    assert made["attack[victim=released,seed=0]"].pins["victim"].pin == "released-7b"
    assert made["attack[victim=base,seed=1]"].steps["victim"].instances == ["pretrain"]
    assert made["attack[victim=tuned,seed=1]"].steps["victim"].instances == ["tune[seed=1]"]
    assert made["tune[seed=0]"].steps["model"].instances == ["defend[seed=0]"]


def test_a_step_comes_after_every_model_it_may_read() -> None:
    order = [one.step for one in plan().instances]
    assert list(dict.fromkeys(order)) == ["pretrain", "defend", "tune", "attack", "table"]


def test_what_one_profile_pins_another_pretrains() -> None:
    mini, paper = plan(), plan(profile="paper")
    assert [pin.id for pin in mini.pins] == ["released-7b"]
    assert [pin.id for pin in paper.pins] == ["base-7b", "released-7b"]
    assert "pretrain" not in paper.by_id
    assert paper.by_id["defend[seed=0]"].pins["model"].pin == "base-7b"
    for profile, made in (("mini", mini), ("paper", paper)):  # what is fetched is what is read
        assert sorted(needed_pins(experiment(), profile)) == [pin.id for pin in made.pins]


def test_a_trained_model_inherits_what_its_pin_declared() -> None:
    mini, paper = plan().by_id, plan(profile="paper").by_id
    tuned = "attack[victim=tuned,seed=0]"
    assert paper[tuned].models["victim"].attributes == {"format": "llama", "architecture": "toy"}
    assert paper[tuned].models["victim"].folder == "weights/final"
    assert mini[tuned].models["victim"].attributes == {"format": "mini"}
    assert paper["attack[victim=released,seed=0]"].models["victim"].folder == ""


def test_a_pin_given_directly_has_the_key_of_the_same_pin_by_name() -> None:
    """Old manifests give ``pin:`` to what is a model now; their finished steps stay valid."""
    direct = steps(attack={"inputs": {"victim": {"pin": "released-7b"}}, "each": ["seed"]})
    named = steps(attack={"inputs": {"victim": {"model": "released"}}, "each": ["seed"]})
    keys = [plan(experiment(steps=one)).by_id["attack[seed=0]"].key for one in (direct, named)]
    assert keys[0] == keys[1]


def test_keys_follow_the_model() -> None:
    before, tuned, base = plan().by_id, "attack[victim=tuned,seed=0]", "attack[victim=base,seed=0]"
    more = experiment(
        profiles={"mini": {"set": {"defend": {"add": 11.0}, "pretrain": {"seed": 5}}}}
    )
    after = plan(more).by_id
    assert before[tuned].key != after[tuned].key
    other = experiment(
        profiles={
            "mini": {"set": {"defend": {"add": "${seed}"}, "pretrain": {"seed": 5, "format": "x"}}}
        }
    )
    assert before[base].key != plan(other).by_id[base].key
    renamed = msgspec.structs.replace(PINS[1], attributes={"format": "other"})
    released = "attack[victim=released,seed=0]"
    assert plan_of(experiment(), pins=[renamed]).by_id[released].key != before[released].key


def test_at_chooses_the_instance_of_a_grid() -> None:
    """One step trains with two methods; each is a victim of its own."""
    methods = {
        "matrix": {"victim": ["by-a", "by-b"], "seed": [0, 1], "method": ["a", "b"]},
        "models": {
            "base": {"step": "pretrain"},
            "by-a": {"step": "defend", "at": {"method": "a"}},
            "by-b": {"step": "defend", "at": {"method": "b"}},
        },
    }
    kept = [step for step in steps(defend={"each": ["method", "seed"]}) if step["id"] != "tune"]
    made = plan(experiment(steps=kept, profiles={"mini": methods}))
    reads = made.by_id["attack[victim=by-b,seed=1]"].steps["victim"].instances
    assert reads == ["defend[method=b,seed=1]"]


def test_a_run_with_results(run_toy: Callable[..., Path], tmp_path: Path) -> None:
    write_model(tmp_path / "pins" / "released-7b", 100.0)
    made = plan()
    folder = run_toy(made)
    results = json.loads((folder / "results.json").read_text())
    values = {cell["id"]: cell["value"] for cell in results["cells"]}
    # factor 3: the base is 5, the released one 100, the tuned one 5 + seed + 1
    assert values == {
        f"number.{victim}-{seed}": 3 * number
        for seed in (0, 1)
        for victim, number in (("base", 5), ("released", 100), ("tuned", 6 + seed))
    }
    store = Store(tmp_path / "home")
    tuned = store.path(made.by_id["attack[victim=tuned,seed=0]"].key) / "number.json"
    said = json.loads(tuned.read_text())
    assert (said["attributes"], said["pinned"]) == ({"format": "mini"}, False)
    key = made.by_id["tune[seed=0]"].key
    entry = store.look(key, "all").entry
    assert entry is not None
    assert set(entry.files) == {
        "report.json",
        "weights/final/config.json",
        "weights/final/model.safetensors",
        "weights/final/tokenizer/vocabulary.json",
    }


def test_a_damaged_model_is_trained_again_and_its_readers_are_kept(
    run_toy: Callable[..., Path], tmp_path: Path
) -> None:
    write_model(tmp_path / "pins" / "released-7b", 100.0)
    made = plan()
    run_toy(made)
    store = Store(tmp_path / "home")
    weights = store.path(made.by_id["tune[seed=1]"].key) / "weights/final/model.safetensors"
    weights.chmod(0o644)
    weights.write_text("77.0")
    record = json.loads((run_toy(made) / "record.json").read_text())
    states = {id: one["state"] for id, one in record["steps"].items()}
    assert states["tune[seed=1]"] == "run"
    assert set(states.values()) == {"run", "cached"}
    assert sum(state == "run" for state in states.values()) == 1


@pytest.mark.parametrize("forget", ["config.json", "model.safetensors"])
def test_a_step_must_write_the_model_it_promises(
    run_toy: Callable[..., Path], tmp_path: Path, forget: str
) -> None:
    write_model(tmp_path / "pins" / "released-7b", 100.0)
    broken = experiment(
        profiles={"mini": {"set": {"pretrain": {"seed": 5, "forget": forget}}}},
    )
    with pytest.raises(StepFailed, match="'model' is no model"):
        run_toy(plan(broken))


def test_kinds_declare_their_model_rightly() -> None:
    def kind(**fields: Any) -> StepKind:
        inputs: Any = {"model": "model", "data": "pin"}
        return StepKind("toy/y", 1, NoParams, lambda c, p: None, inputs, ("model",), **fields)

    assert kind(model=ModelOutput(inherits="model")).model is not None
    with pytest.raises(ValueError, match="'other' is none of its outputs"):
        kind(model=ModelOutput(folder="other"))
    with pytest.raises(ValueError, match="'data' is no input of sort 'model'"):
        kind(model=ModelOutput(inherits="data"))


@pytest.mark.parametrize(
    ("changes", "words", "path"),
    [
        (
            {"steps": steps(tune={"inputs": {"model": {"model": "defendd"}}})},
            "profile 'mini' has no model 'defendd', which input 'model' of step 'tune' reads",
            ("steps", 2, "inputs", "model", "model"),
        ),
        (
            {"profiles": {"mini": {"matrix": {"victim": ["base", "basis"], "seed": [0]}}}},
            "has no model 'basis', which input 'victim' of step 'attack'",
            ("profiles", "mini", "matrix", "victim", 1),
        ),
        (
            {"profiles": {"mini": {"models": {**MODELS, "base": {"step": "attack"}}}}},
            "step 'attack' (toy/attack) writes no model",
            ("profiles", "mini", "models", "base", "step"),
        ),
        (
            {"steps": steps(attack={"inputs": {"victim": {"step": "table"}}})},
            "step 'table' (toy/table) writes no model",
            ("steps", 0, "inputs", "victim", "step"),
        ),
        (
            {"profiles": {"mini": {"models": {**MODELS, "base": {"step": "pretrane"}}}}},
            "there is no step 'pretrane'",
            ("profiles", "mini", "models", "base", "step"),
        ),
        (
            {"profiles": {"mini": {"models": {**MODELS, "base": {"pin": "no-such"}}}}},
            "there is no pin 'no-such'",
            ("profiles", "mini", "models", "base", "pin"),
        ),
        (
            {"profiles": {"mini": {"models": {**MODELS, "base": {"pin": "a", "step": "defend"}}}}},
            "model 'base' needs exactly one of",
            ("profiles", "mini", "models", "base"),
        ),
        (
            {"profiles": {"mini": {"models": {**MODELS, "base": {"step": "tune"}}}}},
            "steps wait for each other: attack, tune, defend, table",
            ("steps", 0),
        ),
        (
            {"steps": steps(attack={"each": ["victim"]})},
            "input 'victim' is one instance, but 'tune' also runs over seed",
            ("steps", 0, "inputs", "victim", "model"),
        ),
        (
            {
                "profiles": {
                    "mini": {
                        "models": {
                            **MODELS,
                            "base": {"step": "pretrain", "at": {"seed": 1}},
                        }
                    }
                }
            },
            "step 'pretrain' does not run over the axis 'seed'",
            ("profiles", "mini", "models", "base", "at", "seed"),
        ),
        (
            {
                "profiles": {
                    "mini": {
                        "models": {
                            **MODELS,
                            "base": {"step": "pretrain"},
                            "tuned": {"step": "tune", "at": {"seed": 7}},
                        }
                    }
                }
            },
            "axis 'seed' has no value '7'",
            ("profiles", "mini", "models", "tuned", "at", "seed"),
        ),
        (
            {"profiles": {"mini": {"models": {**MODELS, "base": {"pin": "x", "at": {"s": 1}}}}}},
            "model 'base' is a pin; 'at' is for steps",
            ("profiles", "mini", "models", "base", "at"),
        ),
        (
            {"steps": steps(attack={"inputs": {"victim": {"model": "a", "pin": "b"}}})},
            "needs exactly one of 'pin', 'step' and 'model'",
            ("steps", 0, "inputs", "victim"),
        ),
        (
            {"steps": steps(table={"inputs": {"numbers": {"model": "base"}}})},
            "input 'numbers' of toy/table is a steps, not what stands here",
            ("steps", 4, "inputs", "numbers"),
        ),
    ],
)
def test_models_that_lead_nowhere(
    changes: dict[str, Any], words: str, path: tuple[str | int, ...]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        plan(experiment(**changes))
    assert words in caught.value.what
    assert caught.value.path == path


def test_models_only_the_paper_profile_has_are_no_fault() -> None:
    """A step that reads a name is checked at each profile that has it."""
    only = {"models": {**MODELS, "base": {"step": "pretrain"}, "extra": {"pin": "released-7b"}}}
    assert plan(experiment(profiles={"mini": only})).by_id.keys() == plan().by_id.keys()
