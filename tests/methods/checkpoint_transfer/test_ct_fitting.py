"""Maps of two models: the same state is fitted and used; teacher = student gives the identity."""

from __future__ import annotations

import pytest
import torch

from kit.lm.hidden import block_outputs
from kit.methods.checkpoint_transfer.fitting import fit_maps
from kit.methods.checkpoint_transfer.losses import mapped_targets, remove_loss
from kit.methods.checkpoint_transfer.recipe import Recipe
from tests.methods.checkpoint_transfer.tiny import DEPTH, WIDTH, batch, model

BLOCKS = (-1, 0, 2, 3)
BATCHES = [batch(seed, rows=8) for seed in range(6)]
HELD_OUT = [batch(seed, rows=8) for seed in (20, 21)]


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_teacher_equal_to_student_gives_the_identity_and_no_loss(kind: str) -> None:
    one = model(0, kind)
    # 40 different ids make what enters block 0 of rank 40 at most: enough for width 16.
    fitted = fit_maps(one, one, BATCHES, HELD_OUT, BLOCKS, alpha=1e-9)
    ids, mask = batch(7)
    states = block_outputs(one, ids, mask, BLOCKS)
    for block in BLOCKS:
        torch.testing.assert_close(fitted.maps[block].weight, torch.eye(WIDTH), rtol=0, atol=1e-4)
        assert fitted.held_out[block].mse < 1e-9
        assert fitted.unmapped[block].mse == 0
    targets = mapped_targets(states, fitted.maps, mask)
    assert float(remove_loss(states, targets, mask)) < 1e-9


def test_maps_are_of_the_states_that_the_recipe_pulls() -> None:
    """Fitted and used on one state the loss is the fit's own error; one block late it is larger."""
    teacher, student = model(0), model(1)
    layers = (1, 2, 3)
    agreeing = Recipe(0, 1, layers=layers)
    late = Recipe(0, 1, layers=layers, use_at="block-output")
    fitted = fit_maps(teacher, student, BATCHES, HELD_OUT, sorted({*agreeing.map_of.values()}))
    losses = {}
    for name, recipe in (("agreeing", agreeing), ("late", late)):
        total, tokens = 0.0, 0
        for ids, mask in BATCHES:
            teacher_states = block_outputs(teacher, ids, mask, recipe.blocks)
            targets = mapped_targets(teacher_states, fitted.maps, mask, recipe.map_of)
            states = block_outputs(student, ids, mask, recipe.blocks)
            total += float(remove_loss(states, targets, mask)) * int(mask.sum())
            tokens += int(mask.sum())
        losses[name] = total / tokens
    own = sum(fitted.fit[block].mse for block in agreeing.blocks) / len(layers)
    assert losses["agreeing"] == pytest.approx(own, rel=1e-4)
    assert losses["late"] > 1.5 * losses["agreeing"]


def test_fit_is_measured_on_other_text_too() -> None:
    fitted = fit_maps(model(0), model(1), BATCHES, HELD_OUT, [1])
    assert fitted.held_out[1].tokens == sum(int(mask.sum()) for _, mask in HELD_OUT)
    assert fitted.fit[1].tokens == sum(int(mask.sum()) for _, mask in BATCHES)
    assert fitted.held_out[1].mse > fitted.fit[1].mse
    assert fitted.unmapped[1].mse > fitted.fit[1].mse


def test_models_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="num_hidden_layers is 3 in the teacher and 4"):
        fit_maps(model(0, depth=3), model(1), BATCHES, HELD_OUT, [1])
    with pytest.raises(ValueError, match="block 4 of a model"):
        fit_maps(model(0), model(1), BATCHES, HELD_OUT, [DEPTH])
