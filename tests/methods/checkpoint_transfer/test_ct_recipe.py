"""What a recipe takes and refuses, at the borders, and the values that the published runs had."""

from __future__ import annotations

from typing import Any

import pytest

from kit.methods.checkpoint_transfer.recipe import LAYERS, Recipe
from kit.methods.checkpoint_transfer.student import optimizer_spec
from kit.train.optimizers import MATRICES, AdamW, Muon
from tests.refused import refused


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"use_at": "after"}, "unknown use_at"),
        ({"fit_at": "block-output", "use_at": "block-output"}, ""),
        ({"layers": (0,)}, ""),
        ({"layers": (0, 1)}, ""),
        ({"layers": (-1, 1)}, "rising order"),
        ({"layers": (2, 1)}, "rising order"),
        ({"retain_coef": 0.0}, ""),
        ({"remove_coef": 0.0}, "above 0"),
        ({"remove_coef": 1.0}, ""),
        ({"lora_rank": 1}, ""),
        ({"lora_rank": 0, "full_rank": True}, ""),
        ({"learning_rate": -1e-3}, "learning rate"),
        ({"learning_rate": 1.0}, ""),
        ({"all_reduce": 1}, "true or false"),
        ({"full_rank": "true"}, "true or false"),
        ({"train_embeddings": None}, "true or false"),
        ({"micro_batch": 3}, "do not divide"),
        ({"micro_batch": 0}, "at least 1"),
        ({"world": 8}, ""),
        ({"world": 3}, "do not divide"),
        ({"epochs": 0}, "at least 1"),
        ({"global_batch": 24}, "do not fill"),
        ({"examples": 24, "global_batch": 24}, ""),
        ({"optimizer": "muon"}, ""),
    ],
)
def test_borders_of_a_recipe(settings: dict[str, Any], wrong: str) -> None:
    refused(
        lambda: Recipe(**{"retain_coef": 5.0, "remove_coef": 5.0, **settings}), bool(wrong), wrong
    )


@pytest.mark.parametrize(("section", "values"), [
    ("1.4", {"layers": (5, 10, 15, 20, 25, 30), "affine": True}),
    ("1.5", {"retain_loss": "kl"}),
    ("1.8", {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01, "warmup": 0,
             "clip": 1.0, "micro_batch": 4, "global_batch": 32, "world": 1}),
    ("1.9", {"lora_rank": 16, "lora_alpha": 16.0, "lora_dropout": 0.05, "full_rank": False,
             "train_embeddings": True}),
    ("1.12", {"examples": 1024, "epochs": 1}),
])  # fmt: skip
def test_what_is_left_out_is_as_published(section: str, values: dict[str, Any]) -> None:
    """Sections of the reference page on the published runs."""
    plain = Recipe(5, 5)
    assert {name: getattr(plain, name) for name in values} == values, section
    assert plain.layers == LAYERS


def test_a_run_of_the_published_length_and_its_epochs() -> None:
    """1,024 pairs: 256 micro-batches and 32 optimizer steps (section 1.12), loss 224 logged."""
    steps = Recipe(5, 5).steps
    assert (steps.micro_batches, steps.ramp, steps.accumulation) == (256, 256, 8)
    assert (steps.optimizer_steps, steps.last_logged) == (32, 224)
    longer = Recipe(5, 5, epochs=3, micro_batch=2, world=4, global_batch=16).steps
    assert (longer.micro_batches, longer.ramp, longer.accumulation) == (384, 128, 2)
    assert (longer.optimizer_steps, longer.last_logged) == (192, 352)


def test_states_that_are_fitted_and_used_by_the_four_choices() -> None:
    made = {
        (fit, use): Recipe(5, 5, layers=(0, 3), fit_at=f"block-{fit}", use_at=f"block-{use}")
        for fit in ("input", "output")
        for use in ("input", "output")
    }
    found = {key: (recipe.blocks, recipe.map_of) for key, recipe in made.items()}
    assert found == {
        ("input", "input"): ((-1, 2), {-1: -1, 2: 2}),
        ("input", "output"): ((0, 3), {0: -1, 3: 2}),
        ("output", "input"): ((-1, 2), {-1: 0, 2: 3}),
        ("output", "output"): ((0, 3), {0: 0, 3: 3}),
    }


def test_gradients_that_are_not_averaged_make_a_smaller_batch() -> None:
    alone = Recipe(5, 5, world=4, all_reduce=False)
    assert (alone.effective_batch, Recipe(5, 5, world=4).effective_batch) == (8, 32)


def test_the_optimizer_decays_what_the_published_ones_did() -> None:
    """AdamW matrices only, Muon everything (sections 1.8 and 1.11)."""
    made = optimizer_spec(Recipe(5, 5, learning_rate=2e-4, weight_decay=0.03))
    assert made == AdamW(2e-4, 0.03, decay=MATRICES)
    muon = Recipe(5, 5, optimizer="muon", muon_routing="below-200-rows", learning_rate=2e-4)
    assert optimizer_spec(muon) == Muon(2e-4, 0.01, routing="below-200-rows")
