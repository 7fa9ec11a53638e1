"""R2D2 (Mazeika et al. 2024): refuse under optimised adversarial suffixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.methods.tar.baselines.recipe import Terms
from kit.methods.tar.forward import forward
from kit.methods.tar.losses import inverse_cross_entropy
from kit.methods.tar.objectives import language_model_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kit.train.batching import Batch

RELEASED = "cais/zephyr_7b_r2d2"
"""Zephyr-7B; whether the TAR paper trained its own on Llama-3 could not be found out."""


def r2d2(
    model: PreTrainedModel,
    away: Batch,
    toward: Batch,
    benign: Batch,
    *,
    away_scale: float,
    toward_scale: float,
) -> Terms:
    """SFT(benign) - a log(1 - p(affirmative answer)) + b CE(refusal), under adversarial suffixes.

    The pool of suffixes that the method keeps optimising with GCG is no part of this: its sizes and
    the coefficients could not be obtained, and the paper's row is the released checkpoint.

    Args:
        model: In training.
        away: Requests with their suffixes; labels on the affirmative answer.
        toward: The same with labels on a refusal.
        benign: Ordinary chat.
        away_scale: a.
        toward_scale: b.
    """
    yield "benign", language_model_loss(model, benign)
    out = forward(model, away)
    yield "away", away_scale * inverse_cross_entropy(out.states, out.head, away.labels)
    yield "toward", toward_scale * language_model_loss(model, toward)
