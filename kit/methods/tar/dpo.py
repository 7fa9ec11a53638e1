"""The preference loss of TAR-Refusal: DPO against log-probabilities of the initial model.

Source: [CODE] modules/objectives.py ``DPOLoss``: sigmoid loss, beta 0.1, no label smoothing,
log-probabilities summed over the response, those of the reference computed once an example.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import logsigmoid

from kit.methods.tar.scores import CHUNK, Head, log_probs
from kit.train.losses import predicting_positions

if TYPE_CHECKING:
    from torch import Tensor

    from kit.train.batching import Batch

BETA = 0.1
"""modules/objectives.py, ``DPOLoss``."""


@dataclass(frozen=True)
class Pairs:
    """Preferred and rejected responses to the same prompts, labels on the responses only.

    Attributes:
        chosen: B preferred responses with their prompts: the refusals.
        rejected: B rejected ones, row i to the same prompt.
        reference_chosen: [B] summed log-probabilities under the initial model.
        reference_rejected: [B] likewise.
    """

    chosen: Batch
    rejected: Batch
    reference_chosen: Tensor
    reference_rejected: Tensor

    def __post_init__(self) -> None:
        """Refuse pairs whose sides do not match."""
        sizes = {
            self.chosen.ids.shape[0],
            self.rejected.ids.shape[0],
            *self.reference_chosen.shape,
            *self.reference_rejected.shape,
        }
        if len(sizes) > 1:
            raise ValueError(
                f"pairs of {self.chosen.ids.shape[0]} chosen and {self.rejected.ids.shape[0]} "
                f"rejected responses with {tuple(self.reference_chosen.shape)} and "
                f"{tuple(self.reference_rejected.shape)} reference values"
            )


def response_log_probs(states: Tensor, head: Head, labels: Tensor, *, chunk: int = CHUNK) -> Tensor:
    """Log-probability of each row's labels, summed over its tokens; [B] nats.

    Raises:
        ValueError: A row without labels: a response that is not there has no preference.
    """
    rows, columns, targets = predicting_positions(labels)
    if int((rows.bincount(minlength=labels.shape[0]) == 0).sum()):
        raise ValueError("a response without any label token; truncation may have eaten it")
    values = log_probs(states[rows, columns], head, targets, chunk=chunk)
    return torch.zeros(labels.shape[0], dtype=values.dtype, device=values.device).index_add(
        0, rows, values
    )


def margins(chosen: Tensor, rejected: Tensor, pairs: Pairs) -> Tensor:
    """How much more the policy prefers the chosen response than the reference does; [B] nats.

    Args:
        chosen: [B] log-probabilities of the chosen responses under the policy.
        rejected: [B] of the rejected ones.
        pairs: Where the reference values stand.
    """
    return (chosen - pairs.reference_chosen) - (rejected - pairs.reference_rejected)


def dpo_loss(margin: Tensor, *, beta: float = BETA) -> Tensor:
    """Mean of -log sigmoid(beta x margin) over the pairs; a scalar, ln 2 where nothing moved.

    Raises:
        ValueError: A beta that is not positive.
    """
    if not beta > 0:
        raise ValueError(f"beta is {beta}; the loss needs a positive one")
    return -logsigmoid(beta * margin).mean()


def won(margin: Tensor) -> Tensor:
    """Which pairs the policy prefers more than the reference does; [B] bool.

    The paper's D.5 plots a "win-rate" that reaches 1; its definition could not be read. The share
    of these is the reward accuracy that trl logs.
    """
    return margin > 0
