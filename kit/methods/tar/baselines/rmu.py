"""RMU (Li et al. 2024): steer forget states at one block to a random direction, anchor the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kit.methods.tar.baselines.recipe import Recipe, Terms
from kit.methods.tar.forward import forward
from kit.methods.tar.losses import MASKED, counted_positions
from kit.methods.tar.scores import at_least_fp32
from kit.methods.tar.settings import BLOCK_OUTPUTS

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.train.batching import Batch

RECIPE = Recipe(
    steps=250,
    learning_rate=5e-5,
    warmup=0,
    batch=4,
    optimizer="adamw",
    source="paper G.1: 250 steps at 5e-5; batch and optimizer as in WMDP, from memory",
)
STEERING = {"bio": 20.0, "cyber": 30.0, "chem": 50.0}
"""Paper G.1."""
RETAIN_SCALE = 700.0
"""Paper G.1, on Wikitext."""
BLOCK = 7
"""Where states are compared, counted from 0. The paper does not say for Llama-3; WMDP's default."""
UPDATED_BLOCKS = (5, 6, 7)
"""Whose MLP output projections are trained. Likewise."""
MEAN = "mean"
SUM = "sum"


def steering_vector(width: int, coefficient: float, seed: int) -> Tensor:
    """c u: a direction drawn uniformly from the positive cube, of length c; [d] float32."""
    direction = torch.rand(width, generator=torch.Generator().manual_seed(seed))
    return direction * (coefficient / float(torch.linalg.vector_norm(direction)))


def rmu(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    forget: Batch,
    retain: Batch,
    target: Tensor,
    *,
    block: int = BLOCK,
    retain_scale: float = RETAIN_SCALE,
    features: str = MEAN,
) -> Terms:
    """mean_t ||h(t) - c u||^2 on forget + alpha mean_t ||h(t) - h_reference(t)||^2 on retain.

    Args:
        model: In training.
        reference: The frozen original.
        forget: Forget examples.
        retain: Retain examples.
        target: [d] from ``steering_vector``.
        block: Compared block, counted from 0.
        retain_scale: alpha.
        features: ``mean`` over features as the WMDP code does (its ``mse_loss``), or their ``sum``
            as its paper writes; the ratio of the terms is the same.

    Raises:
        ValueError: Unknown name, or a block that the model does not have.
    """
    yield "forget-steering", _distance(_states(model, forget, block), target, forget, features)
    with torch.no_grad():
        original = _states(reference, retain, block)
    ours = _states(model, retain, block)
    yield "retain-anchor", retain_scale * _distance(ours, original, retain, features)


def trained_names(model: PreTrainedModel, blocks: tuple[int, ...] = UPDATED_BLOCKS) -> list[str]:
    """Names of the parameters that RMU trains: the MLP output projections of some blocks."""
    endings = tuple(f"layers.{block}.mlp.down_proj.weight" for block in blocks)
    names = [name for name, _ in model.named_parameters() if name.endswith(endings)]
    if len(names) != len(blocks):
        raise ValueError(f"the model has {len(names)} of the MLP projections of blocks {blocks}")
    return names


def _states(model: PreTrainedModel, batch: Batch, block: int) -> Tensor:
    layers = forward(model, batch, layers=BLOCK_OUTPUTS).layers
    if not 0 <= block < len(layers):
        raise ValueError(f"block {block} of a model of {len(layers)} blocks")
    return layers[block]


def _distance(states: Tensor, target: Tensor, batch: Batch, features: str) -> Tensor:
    if features not in (MEAN, SUM):
        raise ValueError(f"features is {features!r}; known: {MEAN}, {SUM}")
    difference = at_least_fp32(states) - at_least_fp32(target.to(states.device))
    squares = counted_positions(difference, batch.attention_mask, MASKED).square()
    return squares.mean() if features == MEAN else squares.sum(-1).mean()
