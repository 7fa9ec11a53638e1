"""Max Entropy: stay a language model on retain data, be uniform on forget data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.methods.tar.baselines.common import FORGET, STAY
from kit.methods.tar.baselines.recipe import TUNED, Term
from kit.methods.tar.forward import forward
from kit.methods.tar.losses import INCLUDED, negative_entropy

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.methods.tar.batches import Counted

RECIPE = TUNED


def max_entropy(*, padding: str = INCLUDED, scale: float = 1.0) -> tuple[Term, ...]:
    """CE(retain) - scale x H(forget).

    Minimising KL(p || uniform) is the same up to ln V (paper G.1). The released loop cannot run: it
    fetches a forget batch and measures the retain batch ([CODE] modules/training.py).

    Args:
        padding: Whether padding counts in the entropy.
        scale: Of the entropy; 1 in the paper's formula.
    """

    def flat(model: PreTrainedModel, forget: Counted) -> Tensor:
        out = forward(model, forget.batch)
        loss = negative_entropy(
            out.states,
            out.head,
            forget.batch.attention_mask,
            padding=padding,
            total=forget.total(padding),
        )
        return scale * loss

    return STAY, Term("forget-negative-entropy", (FORGET,), flat)
