"""The two losses of the outer loop and the adversary's, on models and batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kit.methods.tar.dpo import Pairs, dpo_loss, margins, response_log_probs
from kit.methods.tar.forward import forward
from kit.methods.tar.losses import (
    cross_entropy,
    inverse_cross_entropy,
    negative_cross_entropy,
    negative_entropy,
)
from kit.methods.tar.representations import representation_distance
from kit.methods.tar.settings import (
    CLAMPED_CROSS_ENTROPY,
    DPO,
    ENTROPY,
    INVERSE_CROSS_ENTROPY,
    TarSettings,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.train.batching import Batch


@dataclass(frozen=True)
class RetainLoss:
    """The two halves of the retain loss, of one graph.

    Attributes:
        language_model: Cross-entropy on retain data.
        representation: Distance to the original model's states, scaled.
    """

    language_model: Tensor
    representation: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return self.language_model + self.representation


def language_model_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Mean next-token cross-entropy: the adversary's loss, and half of the retain loss."""
    out = forward(model, batch)
    return cross_entropy(out.states, out.head, batch.labels)


def retain_loss(
    model: PreTrainedModel, reference: PreTrainedModel, batch: Batch, settings: TarSettings
) -> RetainLoss:
    """L_retain, unweighted: stay a language model, and stay near the original states.

    Args:
        model: The model in training, not attacked.
        reference: The original model, frozen.
        batch: Retain examples.
        settings: Distance, layers and padding of the representation term.

    Raises:
        ValueError: A reference model of another shape.
    """
    with torch.no_grad():
        original = forward(reference, batch, layers=settings.layers).layers
    ours = forward(model, batch, layers=settings.layers)
    distance = representation_distance(
        ours.layers,
        original,
        batch.attention_mask,
        distance=settings.distance,
        padding=settings.representation_padding,
    )
    return RetainLoss(
        language_model=cross_entropy(ours.states, ours.head, batch.labels),
        representation=settings.representation_scale * distance,
    )


def tamper_resistance_loss(
    model: PreTrainedModel, batch: Batch | Pairs, settings: TarSettings
) -> Tensor:
    """L_TR of the attacked model on the held-out batch, unweighted.

    Args:
        model: At the attacked point.
        batch: Held-out examples; ``Pairs`` for DPO.
        settings: Chooses the loss.

    Raises:
        ValueError: A batch of the wrong sort for the loss.
    """
    if isinstance(batch, Pairs) != (settings.objective == DPO):
        raise ValueError(
            f"the objective {settings.objective!r} cannot be measured on {type(batch).__name__}"
        )
    if isinstance(batch, Pairs):
        return dpo_loss(preference_margins(model, batch), beta=settings.beta)
    out = forward(model, batch)
    if settings.objective == ENTROPY:
        return negative_entropy(
            out.states, out.head, batch.attention_mask, padding=settings.entropy_padding
        )
    if settings.objective == INVERSE_CROSS_ENTROPY:
        return inverse_cross_entropy(out.states, out.head, batch.labels)
    clamped = settings.objective == CLAMPED_CROSS_ENTROPY
    highest = math.log(model.config.vocab_size) if clamped else math.inf
    return negative_cross_entropy(out.states, out.head, batch.labels, highest=highest)


def preference_margins(model: PreTrainedModel, pairs: Pairs) -> Tensor:
    """Margins of the pairs under a model; [B] nats."""
    chosen = _response_log_probs(model, pairs.chosen)
    return margins(chosen, _response_log_probs(model, pairs.rejected), pairs)


def reference_log_probs(reference: PreTrainedModel, batch: Batch) -> Tensor:
    """Summed log-probabilities of responses under the initial model; [B], kept for the run."""
    with torch.no_grad():
        return _response_log_probs(reference, batch)


def _response_log_probs(model: PreTrainedModel, batch: Batch) -> Tensor:
    out = forward(model, batch)
    return response_log_probs(out.states, out.head, batch.labels)
