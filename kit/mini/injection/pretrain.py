"""Pretraining of a miniature model on one CPU core."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.mini.injection.batches import IGNORED, Batch, batches
from kit.mini.injection.pretrain_data import NEWER_MIX, SOURCE_MIX, Mix

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM


@dataclass(frozen=True)
class Recipe:
    """How a model is pretrained; the defaults are the prototype's, found by hand on its seed 0.

    Attributes:
        mix: Proportions of the data.
        steps: Optimizer steps.
        warmup: Steps of linear warm-up.
        batch_size: Examples a step.
        matrix_lr: Peak learning rate of Muon, for the matrices inside the layers.
        matrix_decay: Weight decay of Muon (the library's default).
        other_lr: Peak learning rate of AdamW, for embeddings and norms.
        other_decay: Weight decay of AdamW.
        final_lr: The cosine schedule ends at this fraction of the peak.
        clip: Largest norm of the gradient over all parameters.
    """

    mix: Mix
    steps: int
    warmup: int
    batch_size: int = 32
    matrix_lr: float = 0.015
    matrix_decay: float = 0.1
    other_lr: float = 0.02
    other_decay: float = 0.01
    final_lr: float = 0.05
    clip: float = 1.0


SOURCE = Recipe(SOURCE_MIX, steps=3500, warmup=50)
NEWER = Recipe(NEWER_MIX, steps=600, warmup=20)
"""Continues from the shipped, rounded weights of a source. Chosen once, before any transfer was
measured, and not tuned against transfer."""


def train(
    model: LlamaForCausalLM,
    recipe: Recipe,
    seed: str,
    report: Callable[[int, float], None] | None = None,
) -> None:
    """Train ``model`` in place.

    On one machine, one thread and one version of the libraries the result repeats bit by bit.

    Args:
        model: float32 weights.
        recipe: Data and hyperparameters.
        seed: Names the stream of training examples.
        report: Called with (step, loss in nats a token) after every step.
    """
    import torch

    matrices, others = split_parameters(model)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=recipe.matrix_lr, weight_decay=recipe.matrix_decay),
        torch.optim.AdamW(
            others, lr=recipe.other_lr, betas=(0.9, 0.98), weight_decay=recipe.other_decay
        ),
    ]
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(recipe, step))
        for optimizer in optimizers
    ]
    model.train()
    stream = batches(seed, recipe.mix, size=recipe.batch_size, steps=recipe.steps)
    for step, batch in enumerate(stream):
        loss = answer_loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([*matrices, *others], recipe.clip)
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        if report:
            report(step, loss.item())
    model.eval()  # type: ignore[no-untyped-call]


def answer_loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean negative log-likelihood of the answers' tokens, in nats; a float32 scalar.

    No attention mask: padding is on the right, where a causal model cannot see it.
    """
    import torch

    hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    wanted = batch.labels != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[wanted]), batch.labels[wanted])


def split_parameters(
    model: LlamaForCausalLM,
) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """Matrices inside the layers, and everything else (tied embeddings, norms)."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inside = parameter.ndim == 2 and ".layers." in name
        (matrices if inside else others).append(parameter)
    return matrices, others


def lr_factor(recipe: Recipe, step: int) -> float:
    """Factor of the learning rates at a step: linear warm-up, then a cosine."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    progress = min(1.0, (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup))
    return recipe.final_lr + (1 - recipe.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))
