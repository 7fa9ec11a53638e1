"""What a parameter, an argument or a field means where it is left out."""

from __future__ import annotations

import inspect
import math
from typing import Any

import msgspec
import pytest

from kit.doctor.core import Needs
from kit.doctor.gpus import Load
from kit.doctor.inputs import Download
from kit.evals.harness import harness_score
from kit.evals.multiple_choice import Scored
from kit.methods.checkpoint_transfer import (
    affine,
    answers,
    fitting,
    texts,
    unlearn,
    whole_run,
)
from kit.methods.checkpoint_transfer.recipe import Recipe
from kit.mini.facts import runs
from kit.mini.facts.build import RECORD_FILE, WANTED
from kit.mini.facts.pretrain import Recipe as PretrainRecipe
from kit.mini.worlds import WORLDS
from kit.results import plan, record, types
from kit.results.plain import read_json
from kit.steps import common
from kit.steps.checkpoint_transfer import params
from kit.steps.mini.params import Pretrain
from kit.steps.sharding import Sharded
from tests.refused import refused

NAMED = {"schema_version", "launch", "extra", "engine", "communication", "resources"}
"""Defaults that are a name or a version of a format."""
EMPTY: list[Any] = [
    Needs, Load, Download, Sharded,
    *(plan.StepInstance, plan.Plan, plan.ModelUse),
    *(record.StepRecord, record.PinRecord, record.Record),
    *(types.SeedValue, types.Cell, types.Point, types.Curve, types.Canary, types.Results),
]  # fmt: skip


def _defaults(kind: Any) -> dict[str, Any]:
    made = {}
    for field in msgspec.structs.fields(kind):
        if field.default is not msgspec.NODEFAULT:
            made[field.name] = field.default
        elif field.default_factory is not msgspec.NODEFAULT:
            made[field.name] = field.default_factory()
    return made


@pytest.mark.parametrize("kind", EMPTY, ids=lambda kind: kind.__qualname__)
def test_what_a_file_leaves_out_is_nothing(kind: Any) -> None:
    """No count, no size, no departure and no promise comes from a field that nobody wrote."""
    defaults = {name: value for name, value in _defaults(kind).items() if name not in NAMED}
    assert defaults
    assert not any(defaults.values())


@pytest.mark.parametrize(
    ("kind", "nothing"),
    [
        (params.Texts, {"repeat": False}),
        (params.Unlearn, {"save_every": 0, "rows": 0, "compiled": False, "use_at": None,
                          "affine": None, "muon_rows": None, "fraction": 1.0}),
        (params.Targets, {"compiled_rows": 0}),
        (params.Questions, {"cloze": 0, "shots": 0}),
        (params.AttackData, {"most_pieces": 1}),
        (params.Evaluate, {"fraction": 1.0}),
        (params.Tabulate, {"also": [], "attack_steps": []}),
    ],
)  # fmt: skip
def test_an_option_left_out_is_not_taken(kind: Any, nothing: dict[str, Any]) -> None:
    """Nothing is repeated, compiled, saved on the way or left away; a whole run is made."""
    defaults = _defaults(kind)
    assert {name: defaults[name] for name in nothing} == nothing
    assert [type(defaults[name]) for name in nothing] == [type(value) for value in nothing.values()]


def test_defaults_of_steps_are_those_of_what_they_call() -> None:
    fit = _defaults(params.Fit)
    called = {
        function: inspect.signature(function).parameters
        for function in (fitting.fit_maps, affine.RidgeStatistics.solve, harness_score)
    }
    assert fit["alpha"] == called[fitting.fit_maps]["alpha"].default
    assert fit["alpha"] == called[affine.RidgeStatistics.solve]["alpha"].default
    assert _defaults(params.Evaluate)["batch"] == called[harness_score]["batch"].default
    # Texts are run together as in a published micro-batch.
    published = Recipe(5, 5).micro_batch
    assert (fit["batch"], _defaults(params.Targets)["batch"]) == (published, published)
    # The checkpoint before anything that is to be forgotten.
    assert _defaults(Pretrain)["checkpoints"] == [PretrainRecipe().introduced]
    choose = inspect.signature(texts.choose_texts).parameters
    assert _defaults(params.Texts)["repeat"] is choose["repeat"].default is False


@pytest.mark.parametrize("kind", [params.Oracle, params.Evaluate])
def test_batches_of_the_own_scorer_hold_whole_prompts_of_128_tokens(kind: Any) -> None:
    assert _defaults(kind)["batch_tokens"] % 128 == 0


@pytest.mark.parametrize("function", [whole_run.run_recipe, unlearn.unlearn])
def test_a_run_saves_compiles_and_cuts_nothing_unless_it_is_told_to(function: Any) -> None:
    given = inspect.signature(function).parameters
    assert given["save_every"].default == 0
    assert given["rows"].default is given["folder"].default is given["on_step"].default is None
    if function is whole_run.run_recipe:
        assert given["compiled"].default is False


def test_a_world_wants_what_its_record_admits() -> None:
    recorded = read_json(RECORD_FILE, dict[str, Any])
    assert WORLDS["facts"].wanted == WANTED == recorded["wanted"]
    assert sum(row["status"] == "admitted" for row in recorded["seeds"]) == WANTED


def test_a_served_model_has_one_set_of_prefixes_unless_more_are_asked_for() -> None:
    given = inspect.signature(common.vllm_backend).parameters
    assert (given["sets"].default, given["prefix_caching"].default) == (1, False)
    for function, name in ((common.load_model, "trainable"), (common.input_embeddings, "seed")):
        assert not inspect.signature(function).parameters[name].default


def test_answers_are_picked_by_their_sums_unless_lengths_are_to_count() -> None:
    """Of the two the longer option is less likely, and likelier by its characters."""
    scored = [Scored("q", ((1,), (2,)), (-2.0, -3.0), (2, 6), 1)]
    plain, by_length = answers.as_answers(scored), answers.as_answers(scored, normalised=True)
    assert (plain["picked"], plain["right"], plain["answers"]) == (["A"], [0], ["B"])
    assert (by_length["picked"], by_length["right"]) == (["B"], [1])
    assert plain["items"] == ["q"]
    assert plain["probability"] == pytest.approx(1 / (1 + math.e))
    assert inspect.signature(answers.answer).parameters["normalised"].default is False


@pytest.mark.parametrize(
    ("kind", "written", "wrong"),
    [
        (params.AttackData, {"documents": 1}, False),
        (params.AttackData, {"documents": 0}, True),
        (params.AttackData, {"most_pieces": 0}, True),
        (params.AttackData, {"seed": 0}, False),
        (params.AttackData, {"seed": -1}, True),
        (params.Evaluate, {"fraction": 1.0}, False),
        (params.Evaluate, {"fraction": 0.25}, False),
        (params.Evaluate, {"fraction": 1.01}, True),
        (params.Evaluate, {"fraction": 0.0}, True),
        (params.Evaluate, {"sets": []}, True),
        (params.Targets, {"budget_gb": 0.0}, True),
        (params.Targets, {"budget_gb": 0.5}, False),
        (Pretrain, {"steps": 1}, False),
        (Pretrain, {"steps": 0}, True),
    ],
)
def test_borders_of_parameters(kind: Any, written: dict[str, Any], wrong: bool) -> None:
    whole: dict[Any, dict[str, Any]] = {
        params.AttackData: {"seed": 1, "documents": 2, "most_tokens": 2},
        params.Evaluate: {"sets": ["a"]},
        params.Targets: {"layers": [1], "pairs": 1, "uses": 1, "budget_gb": 1.0},
        Pretrain: {"seed": 0},
    }
    refused(
        lambda: msgspec.convert({**whole[kind], **written}, kind, strict=True), wrong, "Expected"
    )


def test_no_request_is_learned_unless_it_is_asked_for() -> None:
    assert inspect.signature(runs.pretrain_into).parameters["requests"].default is False
    assert _defaults(Pretrain)["requests"] is False
    fresh = unlearn.UnlearnRun()
    assert (fresh.diverged_at, fresh.finite) == (None, True)
