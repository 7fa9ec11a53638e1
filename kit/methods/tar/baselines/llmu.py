"""LLMU (Yao et al. 2023) as the TAR paper changes it: cross-entropy in place of the KL term."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.methods.tar.baselines.recipe import TUNED, Terms
from kit.methods.tar.forward import forward
from kit.methods.tar.losses import cross_entropy, negative_cross_entropy
from kit.methods.tar.objectives import language_model_loss
from kit.train.batching import IGNORE

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.train.batching import Batch

RECIPE = TUNED


def llmu(model: PreTrainedModel, forget: Batch, retain: Batch, unrelated: Batch) -> Terms:
    """CE(retain) - CE(forget) + CE(forget inputs, labels of a random retain batch).

    Args:
        model: In training.
        forget: Forget examples.
        retain: Retain examples.
        unrelated: A second retain batch, of which only the labels are used.

    Raises:
        ValueError: Fewer unrelated rows than forget rows.
    """
    yield "retain", language_model_loss(model, retain)
    out = forward(model, forget)
    # The two forget terms share a pass. The released obj_mismatch_next_token takes a second
    # one, and averages rows, not tokens.
    mismatch = cross_entropy(out.states, out.head, mismatched_labels(forget, unrelated))
    ascent = negative_cross_entropy(out.states, out.head, forget.labels)
    yield "forget-ascent-and-mismatch", ascent + mismatch


def mismatched_labels(forget: Batch, unrelated: Batch) -> Tensor:
    """The unrelated labels cut or filled with -100 to the shape of the forget batch; [B, T].

    Padding of the forget batch predicts nothing.
    """
    rows, width = forget.ids.shape
    if unrelated.labels.shape[0] < rows:
        raise ValueError(
            f"{unrelated.labels.shape[0]} unrelated rows cannot label {rows} forget rows"
        )
    labels = forget.ids.new_full((rows, width), IGNORE)
    shared = min(width, unrelated.labels.shape[1])
    labels[:, :shared] = unrelated.labels[:rows, :shared]
    return labels.masked_fill(~forget.attention_mask, IGNORE)
