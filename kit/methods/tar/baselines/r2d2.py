"""R2D2 (Mazeika et al. 2024): refuse under optimised adversarial suffixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.methods.tar.baselines.recipe import Term
from kit.methods.tar.forward import forward
from kit.methods.tar.losses import inverse_cross_entropy
from kit.methods.tar.objectives import language_model_loss

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.methods.tar.batches import Counted

RELEASED = "cais/zephyr_7b_r2d2"
"""Zephyr-7B; whether the TAR paper trained its own on Llama-3 could not be found out."""


AWAY_SCALE = TOWARD_SCALE = 0.5
LOWEST_LOG_PROB = -5.0
"""HarmBench's adversarial_training/.../adv_training_utils.py, in a copy (Wendy-1222/SLM_Jailbreak
at 1c1adaf)."""


def r2d2(*, away_scale: float = AWAY_SCALE, toward_scale: float = TOWARD_SCALE) -> tuple[Term, ...]:
    """SFT(benign) - a log(1 - p(affirmative answer)) + b CE(refusal), under adversarial suffixes.

    The pool of suffixes that the method keeps optimising with GCG is no part of this: the paper's
    row is the released checkpoint, another model's whole fine-tuning (docs/methods/tar.md).

    Args:
        away_scale: a; the stream ``away`` has requests with suffixes, labels on the affirmative
            answer.
        toward_scale: b; the stream ``toward`` has the same with labels on a refusal.
    """

    def away(model: PreTrainedModel, counted: Counted) -> Tensor:
        batch = counted.batch
        out = forward(model, batch)
        loss = inverse_cross_entropy(
            out.states,
            out.head,
            batch.labels,
            lowest_log_prob=LOWEST_LOG_PROB,
            weights=counted.label_weights,
        )
        return away_scale * loss

    def toward(model: PreTrainedModel, counted: Counted) -> Tensor:
        return toward_scale * language_model_loss(model, counted)

    return (
        Term("benign", ("benign",), language_model_loss),
        Term("away", ("away",), away),
        Term("toward", ("toward",), toward),
    )
