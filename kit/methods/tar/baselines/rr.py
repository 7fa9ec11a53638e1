"""RR, circuit breakers (Zou et al. 2024): make harmful states orthogonal to what they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cosine_similarity

from kit.lm.hidden import block_outputs
from kit.methods.tar.baselines.common import RETAIN
from kit.methods.tar.baselines.recipe import Objective, Term
from kit.methods.tar.forward import forward
from kit.methods.tar.losses import MASKED, counted_positions
from kit.methods.tar.representations import representation_distance
from kit.methods.tar.scores import at_least_fp32
from kit.methods.tar.settings import HIDDEN_STATES

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.methods.tar.batches import Counted

HARMFUL = "harmful"
"""Stream of harmful requests with harmful answers."""
RELEASED = "GraySwanAI/Llama-3-8B-Instruct-RR"
"""The checkpoint that the TAR paper evaluates."""
STEPS = 150
ALPHA = 10.0
BLOCKS = (9, 19)
"""The authors' launcher for Llama 3 8B, lorra_circuit_breaker_llama3_8b.sh, in a copy
(ks-fahad/CircuitBreakers at 1a5c087): target layers 10 and 20, alpha 10, adapters of rank 16 and
scale 1 with dropout 0.05, AdamW at a constant 1e-4, batch 16. transformers' hidden state 10 is the
output of block 9, counted from 0."""


def coefficients(step: int, *, alpha: float = ALPHA, steps: int = STEPS) -> tuple[float, float]:
    """Coefficients of the harmful and the retain term at a step counted from 0.

    They go from (alpha, 0) to (alpha / 2, alpha / 2): alpha (1 - t / 2T) and alpha t / 2T. The
    released code hard-codes 2T = 300.
    """
    progress = step / (2 * steps)
    return alpha * (1 - progress), alpha * progress


def rr(
    reference: PreTrainedModel,
    *,
    steps: int = STEPS,
    alpha: float = ALPHA,
    blocks: Sequence[int] = BLOCKS,
) -> Objective:
    """c_s mean ReLU(cos(h, h_reference)) on harmful + c_r mean ||h - h_reference|| on retain.

    The model is trained through LoRA adapters. Harmful states are compared at some blocks, retain
    states at every hidden state.

    Args:
        reference: The original: the same model with its adapters off will do.
        steps: Of the run.
        alpha: Scale of both terms.
        blocks: Where harmful states are compared.

    Raises:
        ValueError: No block, or (at the first step) a block that the model does not have.
    """
    if not blocks:
        raise ValueError("harmful states are compared at one block at least")

    def turned(model: PreTrainedModel, counted: Counted) -> Tensor:
        batch = counted.batch
        with torch.no_grad():
            original = block_outputs(reference, batch.ids, batch.attention_mask, blocks)
        ours = block_outputs(model, batch.ids, batch.attention_mask, blocks)
        sums = []
        for block in blocks:
            now, before = at_least_fp32(ours[block]), at_least_fp32(original[block])
            cosine = cosine_similarity(now, before, dim=-1)[..., None]
            sums.append(counted_positions(cosine, batch.attention_mask, MASKED).relu().sum())
        return torch.stack(sums).mean() / counted.total(MASKED)

    def kept(model: PreTrainedModel, counted: Counted) -> Tensor:
        batch = counted.batch
        with torch.no_grad():
            before = forward(reference, batch, layers=HIDDEN_STATES).layers
        return representation_distance(
            forward(model, batch, layers=HIDDEN_STATES).layers,
            before,
            batch.attention_mask,
            padding=MASKED,
            total=counted.total(MASKED),
        )

    def terms(step: int) -> tuple[Term, ...]:
        harmful, retain = coefficients(step, alpha=alpha, steps=steps)
        return (
            Term("retain-distance", (RETAIN,), lambda m, c: retain * kept(m, c)),
            Term("harmful-cosine", (HARMFUL,), lambda m, c: harmful * turned(m, c)),
        )

    return terms
