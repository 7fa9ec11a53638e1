"""A default that stands in two layers, the step's parameters and the science, is the same in both.

Whoever leaves a parameter out of a manifest and whoever leaves the argument out of a call get the
same number.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from kit.methods.checkpoint_transfer.recipe import Recipe as TransferRecipe
from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.tar import label_study, refusal_safeguards
from kit.methods.tar.stages import SafeguardPlan
from kit.mini.facts.model import Shape
from kit.mini.facts.pretrain import Recipe as PretrainRecipe
from kit.steps.checkpoint_transfer import params as transfer
from kit.steps.defensive_tokens import params as tokens
from kit.steps.mini import params as mini
from kit.steps.tampering import params as tampering
from kit.steps.tar import params as tar
from kit.steps.tar import refusal_params
from kit.tampering import attack
from kit.train import engine, fsdp, loop, schedules, sharded

CHOSEN_LATER = {"use_at", "affine"}
"""Left open in the parameters: what they are follows from other parameters."""

PAIRS: list[tuple[Any, Any]] = [
    (transfer.Targets, TransferRecipe),
    (transfer.Unlearn, TransferRecipe),
    (tokens.TrainPrefix, PrefixTraining),
    (mini.Pretrain, Shape),
    (mini.Pretrain, PretrainRecipe),
    *((tampering.Attack, of) for of in (attack.Attack, loop.FineTuning, engine.Precision)),
    *((tampering.Attack, of) for of in (fsdp.FsdpSettings, schedules.Schedule)),
    (tampering.Attack, sharded.ShardedSettings),
    (tampering.Trial, attack.Attack),
    (tar.Safeguard, SafeguardPlan),
    (tar.Train, fsdp.FsdpSettings),
    (refusal_params.RefusalSafeguard, refusal_safeguards.RefusalSafeguard),
    (refusal_params.LabelTraining, label_study.LabelTraining),
]


@pytest.mark.parametrize(("params", "science"), PAIRS, ids=lambda of: of.__qualname__)
def test_a_parameter_left_out_is_an_argument_left_out(params: Any, science: Any) -> None:
    written = {
        field.name: field.default
        for field in msgspec.structs.fields(params)
        if field.default is not msgspec.NODEFAULT
    }
    called = {
        field.name: field.default
        for field in dataclasses.fields(science)
        if field.default is not dataclasses.MISSING
    }
    shared = (written.keys() & called.keys()) - CHOSEN_LATER
    assert shared, "nothing stands in both"
    assert {name: written[name] for name in shared} == {name: called[name] for name in shared}


def test_the_batch_of_the_document_is_sixteen() -> None:
    """Micro-batches of 4, four of them a step (docs/methods/defensive_tokens.md, 1.3)."""
    left_out = PrefixTraining(steps=1)
    assert (left_out.micro_batch, left_out.batch) == (4, 16)


def test_a_seed_left_out_is_0() -> None:
    with_seed = [
        field.default
        for science in {of for _, of in PAIRS}
        for field in dataclasses.fields(science)
        if field.name == "seed" and field.default is not dataclasses.MISSING
    ]
    assert len(with_seed) >= 3
    assert set(with_seed) == {0}
