"""The model that is trained, and its optimizer, from a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kit.lm.model import decoder_layers, embedding_matrix, output_matrix
from kit.methods.checkpoint_transfer.recipe import Recipe
from kit.train.lora import Lora, add_adapter
from kit.train.optimizers import MATRICES, AdamW, Muon, OptimizerSpec

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def make_student(
    model: PreTrainedModel, recipe: Recipe, *, seed: int
) -> PreTrainedModel | PeftModel:
    """Make the weights that the recipe trains require a gradient, and no others.

    Args:
        model: The final model, changed in place; fp32 for full rank.
        recipe: Full rank, or LoRA on the blocks up to the deepest layer, on every linear module of
            a block (the published targets; reference page, section 1.9).
        seed: Of the adapter's first values.

    Raises:
        ValueError: A layer that the model does not have.
    """
    blocks = decoder_layers(model)
    depth = len(blocks)
    if recipe.layers[-1] >= depth:
        raise ValueError(f"layer {recipe.layers[-1]} of a model with layers 0 to {depth - 1}")
    if recipe.full_rank:
        model.requires_grad_(True)
        if not recipe.train_embeddings:
            embedding_matrix(model).requires_grad_(False)
            output_matrix(model).requires_grad_(False)
        return model
    model.requires_grad_(False)
    return add_adapter(model, adapter(model, recipe), seed=seed)


def adapter(model: PreTrainedModel, recipe: Recipe) -> Lora:
    """The recipe's adapter, on every linear module of a block."""
    linear = {
        name.rpartition(".")[2]
        for name, module in decoder_layers(model)[0].named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    return Lora(
        recipe.lora_rank,
        recipe.lora_alpha,
        targets=tuple(sorted(linear)),
        layers=tuple(recipe.lora_blocks),
        dropout=recipe.lora_dropout,
    )


def optimizer_spec(recipe: Recipe) -> OptimizerSpec:
    """The recipe's optimizer.

    AdamW decays matrices only, as the Trainer of transformers does; Muon and the AdamW beside it
    decay everything that they hold (reference page, sections 1.8 and 1.11).
    """
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "muon":
        return Muon(rate, decay, routing=recipe.muon_routing)
    return AdamW(rate, decay, decay=MATRICES)
