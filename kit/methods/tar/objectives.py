"""The losses of the outer loop on models and micro-batches; each returns its share, a scalar."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from kit.lm.model import output_rows
from kit.methods.tar.batches import Counted, CountedPairs
from kit.methods.tar.dpo import Pairs, dpo_loss, margins, response_log_probs, won
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
from kit.train import losses

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.train.batching import Batch


def language_model_loss(model: PreTrainedModel, counted: Counted) -> Tensor:
    """Next-token cross-entropy: the adversary's loss, and half of the retain loss."""
    return losses.language_model_loss(model, counted.micro)


def retain_loss(
    model: PreTrainedModel, reference: PreTrainedModel, counted: Counted, settings: TarSettings
) -> Tensor:
    """L_retain, unweighted: stay a language model, and stay near the original states.

    Args:
        model: The model in training, not attacked.
        reference: The original model, frozen.
        counted: Retain examples.
        settings: Distance, layers and padding of the representation term, and its scale.

    Raises:
        ValueError: A reference model of another shape.
    """
    batch = counted.batch
    with torch.no_grad():
        original = forward(reference, batch, layers=settings.layers).layers
    ours = forward(model, batch, layers=settings.layers)
    padding = settings.representation_padding
    distance = representation_distance(
        ours.layers,
        original,
        batch.attention_mask,
        distance=settings.distance,
        padding=padding,
        total=counted.total(padding),
    )
    nats = cross_entropy(ours.states, ours.head, batch.labels, weights=counted.label_weights)
    return nats + settings.representation_scale * distance


def tamper_resistance_loss(
    model: PreTrainedModel, held_out: Counted | CountedPairs, settings: TarSettings
) -> Tensor:
    """L_TR of the attacked model on the held-out batch, unweighted.

    Args:
        model: At the attacked point.
        held_out: Examples; pairs for DPO.
        settings: Chooses the loss.

    Raises:
        ValueError: A batch of the wrong sort for the loss.
    """
    if isinstance(held_out, CountedPairs) != (settings.objective == DPO):
        raise ValueError(
            f"the objective {settings.objective!r} cannot be measured on {type(held_out).__name__}"
        )
    if isinstance(held_out, CountedPairs):
        margin = preference_margins(model, held_out.pairs)
        return held_out.row_share * dpo_loss(margin, beta=settings.beta)
    batch, weights = held_out.batch, held_out.label_weights
    out = forward(model, batch)
    if settings.objective == ENTROPY:
        padding = settings.entropy_padding
        return negative_entropy(
            out.states,
            out.head,
            batch.attention_mask,
            padding=padding,
            total=held_out.total(padding),
        )
    if settings.objective == INVERSE_CROSS_ENTROPY:
        return inverse_cross_entropy(out.states, out.head, batch.labels, weights=weights)
    clamped = settings.objective == CLAMPED_CROSS_ENTROPY
    highest = math.log(output_rows(model)) if clamped else math.inf
    return negative_cross_entropy(
        out.states, out.head, batch.labels, highest=highest, weights=weights
    )


def preference_margins(model: PreTrainedModel, pairs: Pairs) -> Tensor:
    """Margins of the pairs under a model; [B] nats."""
    chosen = _response_log_probs(model, pairs.chosen)
    return margins(chosen, _response_log_probs(model, pairs.rejected), pairs)


def preference_win_rate(model: PreTrainedModel, held_out: CountedPairs) -> Tensor:
    """This micro-batch's part of the share of pairs won (:func:`kit.methods.tar.dpo.won`).

    Its gradient is zero; it is computed as a loss so that engines add up the parts.
    """
    margin = preference_margins(model, held_out.pairs)
    return held_out.row_share * (won(margin).to(margin.dtype).mean() + 0.0 * margin.sum())


def reference_log_probs(reference: PreTrainedModel, batch: Batch) -> Tensor:
    """Summed log-probabilities of responses under the initial model; [B], kept for the run."""
    with torch.no_grad():
        return _response_log_probs(reference, batch)


def check_reference(model: PreTrainedModel, reference: PreTrainedModel) -> None:
    """Refuse a reference model that cannot be the original of the one in training.

    Raises:
        ValueError: Another width, number of blocks or vocabulary; or the very same model.
    """
    if model is reference:
        raise ValueError("the reference model is the model in training: it would move along")
    for name in ("hidden_size", "num_hidden_layers", "vocab_size"):
        ours, theirs = getattr(model.config, name), getattr(reference.config, name)
        if ours != theirs:
            raise ValueError(
                f"the reference model has another shape: {name} {theirs} against {ours}"
            )


def _response_log_probs(model: PreTrainedModel, batch: Batch) -> Tensor:
    out = forward(model, batch)
    return response_log_probs(out.states, out.head, batch.labels)
