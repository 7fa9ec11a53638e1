"""Min Posterior: push down the probability of the forget labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.methods.tar.baselines.recipe import TUNED, Terms
from kit.methods.tar.forward import forward
from kit.methods.tar.losses import inverse_cross_entropy
from kit.methods.tar.objectives import language_model_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kit.train.batching import Batch

RECIPE = TUNED
THRESHOLD = -15.0
"""[CODE] modules/objectives.py ``log_1_minus_p_loss``: labels below exp(-15) add nothing."""


def min_posterior(
    model: PreTrainedModel, forget: Batch, retain: Batch, *, threshold: float = THRESHOLD
) -> Terms:
    """CE(retain) + mean of -log(1 - p(label)) over forget labels above the threshold.

    The released loop applies the second term to the retain batch's scores.
    """
    yield "retain", language_model_loss(model, retain)
    out = forward(model, forget)
    yield (
        "forget-inverse-cross-entropy",
        inverse_cross_entropy(out.states, out.head, forget.labels, lowest_log_prob=threshold),
    )
