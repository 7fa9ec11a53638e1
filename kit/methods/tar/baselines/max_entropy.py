"""Max Entropy: stay a language model on retain data, be uniform on forget data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.methods.tar.baselines.recipe import TUNED, Terms
from kit.methods.tar.forward import forward
from kit.methods.tar.losses import INCLUDED, negative_entropy
from kit.methods.tar.objectives import language_model_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kit.train.batching import Batch

RECIPE = TUNED


def max_entropy(
    model: PreTrainedModel,
    forget: Batch,
    retain: Batch,
    *,
    padding: str = INCLUDED,
    scale: float = 1.0,
) -> Terms:
    """CE(retain) - scale x H(forget).

    Minimising KL(p || uniform) is the same up to ln V (paper G.1). The released loop cannot run: it
    fetches a forget batch and measures the retain batch ([CODE] modules/training.py).

    Args:
        model: In training.
        forget: Forget examples.
        retain: Retain examples.
        padding: Whether padding counts in the entropy.
        scale: Of the entropy; 1 in the paper's formula.
    """
    yield "retain", language_model_loss(model, retain)
    out = forward(model, forget)
    loss = negative_entropy(out.states, out.head, forget.attention_mask, padding=padding)
    yield "forget-negative-entropy", scale * loss
