"""RR, circuit breakers (Zou et al. 2024): make harmful states orthogonal to what they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cosine_similarity

from kit.methods.tar.baselines.recipe import Terms
from kit.methods.tar.forward import forward
from kit.methods.tar.losses import MASKED, counted_positions
from kit.methods.tar.representations import representation_distance
from kit.methods.tar.scores import at_least_fp32
from kit.methods.tar.settings import BLOCK_OUTPUTS, HIDDEN_STATES

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kit.train.batching import Batch

RELEASED = "GraySwanAI/Llama-3-8B-Instruct-RR"
"""The checkpoint that the TAR paper evaluates."""
STEPS = 150
ALPHA = 10.0
BLOCKS = (9, 19)
"""Steps, alpha and target layers 10 and 20 of the released model are from memory (reference page,
section 5). transformers' hidden state 10 is the output of block 9, counted from 0."""


def coefficients(step: int, *, alpha: float = ALPHA, steps: int = STEPS) -> tuple[float, float]:
    """Coefficients of the harmful and the retain term at a step counted from 0.

    They go from (alpha, 0) to (alpha / 2, alpha / 2): alpha (1 - t / 2T) and alpha t / 2T. The
    released code hard-codes 2T = 300.
    """
    progress = step / (2 * steps)
    return alpha * (1 - progress), alpha * progress


def rr(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    harmful: Batch,
    retain: Batch,
    *,
    step: int,
    steps: int = STEPS,
    alpha: float = ALPHA,
    blocks: Sequence[int] = BLOCKS,
) -> Terms:
    """c_s mean ReLU(cos(h, h_reference)) on harmful + c_r mean ||h - h_reference|| on retain.

    Args:
        model: In training, through LoRA adapters.
        reference: The original: the same model with its adapters off will do.
        harmful: Harmful requests with harmful answers.
        retain: Benign examples.
        step: Counted from 0.
        steps: Of the run.
        alpha: Scale of both terms.
        blocks: Where harmful states are compared; all hidden states are kept on retain.

    Raises:
        ValueError: A block that the model does not have.
    """
    harmful_scale, retain_scale = coefficients(step, alpha=alpha, steps=steps)
    with torch.no_grad():
        before = forward(reference, retain, layers=HIDDEN_STATES).layers
    kept = forward(model, retain, layers=HIDDEN_STATES).layers
    mask = retain.attention_mask
    yield (
        "retain-distance",
        retain_scale * representation_distance(kept, before, mask, padding=MASKED),
    )
    with torch.no_grad():
        original = forward(reference, harmful, layers=BLOCK_OUTPUTS).layers
    ours = forward(model, harmful, layers=BLOCK_OUTPUTS).layers
    if not blocks or not all(0 <= block < len(ours) for block in blocks):
        raise ValueError(f"blocks {tuple(blocks)} of a model of {len(ours)} blocks")
    cosines = [
        cosine_similarity(at_least_fp32(ours[b]), at_least_fp32(original[b]), dim=-1)[..., None]
        for b in blocks
    ]
    turned = [counted_positions(c, harmful.attention_mask, MASKED).relu().mean() for c in cosines]
    yield "harmful-cosine", harmful_scale * torch.stack(turned).mean()
