"""RMU (Li et al. 2024): steer forget states at one block to a random direction, anchor the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kit.lm.hidden import block_outputs
from kit.methods.tar.baselines.common import FORGET, RETAIN
from kit.methods.tar.baselines.recipe import Recipe, Term
from kit.methods.tar.losses import MASKED, counted_positions
from kit.methods.tar.scores import at_least_fp32

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.methods.tar.batches import Counted

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
    reference: PreTrainedModel,
    target: Tensor,
    *,
    block: int = BLOCK,
    retain_scale: float = RETAIN_SCALE,
    features: str = MEAN,
) -> tuple[Term, ...]:
    """mean_t ||h(t) - c u||^2 on forget + alpha mean_t ||h(t) - h_reference(t)||^2 on retain.

    Args:
        reference: The frozen original.
        target: [d] from ``steering_vector``.
        block: Compared block, counted from 0.
        retain_scale: alpha.
        features: ``mean`` over features as the WMDP code does (its ``mse_loss``), or their ``sum``
            as its paper writes; the ratio of the terms is the same.

    Raises:
        ValueError: Unknown name.
    """
    if features not in (MEAN, SUM):
        raise ValueError(f"features is {features!r}; known: {MEAN}, {SUM}")

    def distance(model: PreTrainedModel, counted: Counted, wanted: Tensor) -> Tensor:
        states = _states(model, counted, block)
        difference = at_least_fp32(states) - at_least_fp32(wanted.to(states.device))
        squares = counted_positions(difference, counted.batch.attention_mask, MASKED).square()
        per_token = squares.mean(-1) if features == MEAN else squares.sum(-1)
        return per_token.sum() / counted.total(MASKED)

    def anchored(model: PreTrainedModel, counted: Counted) -> Tensor:
        with torch.no_grad():
            original = _states(reference, counted, block)
        return retain_scale * distance(model, counted, original)

    return (
        Term("forget-steering", (FORGET,), lambda model, counted: distance(model, counted, target)),
        Term("retain-anchor", (RETAIN,), anchored),
    )


def trained_names(model: PreTrainedModel, blocks: tuple[int, ...] = UPDATED_BLOCKS) -> list[str]:
    """Names of the parameters that RMU trains: the MLP output projections of some blocks."""
    endings = tuple(f"layers.{block}.mlp.down_proj.weight" for block in blocks)
    names = [name for name, _ in model.named_parameters() if name.endswith(endings)]
    if len(names) != len(blocks):
        raise ValueError(f"the model has {len(names)} of the MLP projections of blocks {blocks}")
    return names


def _states(model: PreTrainedModel, counted: Counted, block: int) -> Tensor:
    batch = counted.batch
    return block_outputs(model, batch.ids, batch.attention_mask, [block])[block]
