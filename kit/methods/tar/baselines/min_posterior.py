"""Min Posterior: push down the probability of the forget labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.methods.tar.baselines.common import FORGET, STAY
from kit.methods.tar.baselines.recipe import TUNED, Term
from kit.methods.tar.forward import forward
from kit.methods.tar.losses import inverse_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.methods.tar.batches import Counted

RECIPE = TUNED
THRESHOLD = -15.0
"""[CODE] modules/objectives.py ``log_1_minus_p_loss``: labels below exp(-15) add nothing."""


def min_posterior(*, threshold: float = THRESHOLD) -> tuple[Term, ...]:
    """CE(retain) + mean of -log(1 - p(label)) over forget labels above the threshold.

    The released loop applies the second term to the retain batch's scores.
    """

    def unlikely(model: PreTrainedModel, forget: Counted) -> Tensor:
        out = forward(model, forget.batch)
        return inverse_cross_entropy(
            out.states,
            out.head,
            forget.batch.labels,
            lowest_log_prob=threshold,
            weights=forget.label_weights,
        )

    return STAY, Term("forget-inverse-cross-entropy", (FORGET,), unlikely)
