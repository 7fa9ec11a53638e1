"""LLMU (Yao et al. 2023) as the TAR paper changes it: cross-entropy in place of the KL term."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.methods.tar.baselines.common import FORGET, STAY
from kit.methods.tar.baselines.recipe import TUNED, Term
from kit.methods.tar.forward import forward
from kit.methods.tar.losses import cross_entropy, negative_cross_entropy
from kit.train.batching import IGNORE

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.methods.tar.batches import Counted
    from kit.train.batching import Batch

RECIPE = TUNED
UNRELATED = "unrelated"
"""A second stream of retain data, of which only the labels are used."""


def llmu() -> tuple[Term, ...]:
    """CE(retain) - CE(forget) + CE(forget inputs, labels of a random retain batch).

    The last is the mean over rows of each row's mean, as in [CODE] ``obj_mismatch_next_token``. The
    two forget terms share a pass here; the released loop takes two.
    """
    return STAY, Term("forget-ascent-and-mismatch", (FORGET, UNRELATED), _away)


def _away(model: PreTrainedModel, batches: tuple[Counted, Counted]) -> Tensor:
    forget, unrelated = batches
    out = forward(model, forget.batch)
    ascent = negative_cross_entropy(
        out.states, out.head, forget.batch.labels, weights=forget.label_weights
    )
    labels = mismatched_labels(forget.batch, unrelated.batch)
    counts = (labels[:, 1:] != IGNORE).sum(1)
    rows = forget.micro.row_share / len(counts) / counts.clamp(min=1)
    return ascent + cross_entropy(out.states, out.head, labels, weights=rows)


def mismatched_labels(forget: Batch, unrelated: Batch) -> Tensor:
    """The unrelated labels cut or filled with -100 to the shape of the forget batch; [B, T].

    Padding of the forget batch predicts nothing.

    Raises:
        ValueError: Fewer unrelated rows than forget rows.
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
