"""The loss of one step and its gradient in the prefix; padded here, packed in ``packed``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from kit.lm.model import embedding_matrix
from kit.lm.prefix import embed
from kit.train.batching import Batch, Example, collate, forward_groups
from kit.train.losses import (
    TOKEN_MEAN,
    predicting_positions,
    token_weights,
    weighted_cross_entropy,
)
from kit.train.packed import accumulate_packed, packed_value
from kit.train.prefix_config import PACKED, PrefixTraining

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def accumulate(
    model: PreTrainedModel,
    prefix: Tensor,
    examples: Sequence[Example],
    config: PrefixTraining,
    *,
    pad_id: int,
) -> float:
    """Add one step's gradient to ``prefix.grad`` and return the step's loss.

    Each example's weight comes from its micro-batch; which examples share a forward pass is chosen
    for speed (see :func:`kit.train.losses.token_weights`).
    """
    weights = token_weights(
        [example.labels for example in examples],
        micro_batch=config.micro_batch,
        normalisation=config.normalisation,
    )
    examples, weights = _with_labels(examples, weights)
    if config.forward == PACKED:
        return accumulate_packed(
            model,
            prefix,
            examples,
            weights,
            rows=config.forward_rows,
            chunk=config.label_chunk,
            compiled=config.compile,
            low_memory=config.low_memory,
        )
    device = prefix.device
    total = 0.0
    for group in forward_groups([len(e.ids) for e in examples], config.forward_rows):
        batch = collate([examples[i] for i in group], pad_id, device)
        share = torch.tensor([weights[i] for i in group], dtype=torch.float32, device=device)
        loss = batch_loss(model, prefix, batch, share, chunk=config.label_chunk)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def _with_labels(
    examples: Sequence[Example], weights: Sequence[float]
) -> tuple[list[Example], list[float]]:
    """What of a step has to be computed: an example without labels has counted in the weights."""
    kept = [i for i, example in enumerate(examples) if example.labels]
    return [examples[i] for i in kept], [weights[i] for i in kept]


def mean_loss(
    model: PreTrainedModel,
    prefix: Tensor,
    examples: Sequence[Example],
    config: PrefixTraining,
    *,
    pad_id: int,
) -> float:
    """Mean loss of a prefix over all label tokens of some examples; nothing is trained.

    Computed by the forward pass of the training, so that the two are comparable.

    Args:
        model: Frozen causal language model.
        prefix: [n, d].
        examples: At least one.
        config: Of the training.
        pad_id: Fills batches.

    Returns:
        Nats a label token.
    """
    counts = [example.labels for example in examples]
    weights = token_weights(counts, micro_batch=1, normalisation=TOKEN_MEAN)
    examples, weights = _with_labels(examples, weights)
    device = embedding_matrix(model).device
    measured = prefix.detach().to(device, torch.float32, copy=True)
    if config.forward == PACKED:
        return packed_value(
            model,
            measured.requires_grad_(),
            examples,
            weights,
            rows=config.forward_rows,
            chunk=config.label_chunk,
            compiled=config.compile,
            low_memory=config.low_memory,
        )
    total = 0.0
    for group in forward_groups([len(e.ids) for e in examples], config.forward_rows):
        batch = collate([examples[i] for i in group], pad_id, device)
        share = torch.tensor([weights[i] for i in group], dtype=torch.float32, device=device)
        with torch.no_grad():
            total += float(batch_loss(model, measured, batch, share, chunk=config.label_chunk))
    return total


def batch_loss(
    model: PreTrainedModel, prefix: Tensor, batch: Batch, weights: Tensor, *, chunk: int = 4096
) -> Tensor:
    """Weighted loss of one right-padded batch.

    Only states that predict a label pass through the output layer.

    Args:
        model: Causal language model.
        prefix: [n, d], requires a gradient.
        batch: B examples.
        weights: [B] float32, of one label token of each row.
        chunk: See :func:`kit.train.losses.weighted_cross_entropy`.

    Returns:
        A float32 scalar.
    """
    # Padding stands right of everything real, where a causal model does not look: leaving the mask
    # out changes no label's score and lets attention take its causal path (test_prefix_tuning).
    hidden = model.model(
        inputs_embeds=embed(model, batch.ids, prefix),
        position_ids=batch.position_ids[:1],
        use_cache=False,
    ).last_hidden_state
    rows, columns, targets = predicting_positions(batch.labels)
    return weighted_cross_entropy(
        hidden[rows, columns], model.lm_head, targets, weights[rows], chunk=chunk
    )
