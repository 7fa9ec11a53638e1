"""Token cross-entropy on label positions only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from kit.train.batching import IGNORE

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.train.batches import MicroBatch

MICRO_MEAN = "micro-mean"
TOKEN_MEAN = "token-mean"
NORMALISATIONS = (MICRO_MEAN, TOKEN_MEAN)


def predicting_positions(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where labels are predicted from.

    Args:
        labels: [B, T] int64 with -100 where there is no loss.

    Returns:
        Rows [N], columns [N] of the hidden states that predict (one left of the label), and the
        labels [N], in row-major order.
    """
    rows, columns = (labels[:, 1:] != IGNORE).nonzero(as_tuple=True)
    return rows, columns, labels[rows, columns + 1]


def token_weights(
    label_counts: Sequence[int], *, micro_batch: int, normalisation: str = MICRO_MEAN
) -> list[float]:
    """What one label token of each example of a step weighs in the step's loss.

    ``micro-mean`` is the published normalisation: the mean over micro-batches of per-token means
    (defensive_tokens.md, 1.3, "batch"). Micro-batches are consecutive examples. Tokens of a
    micro-batch with few labels weigh more than others, so the loss depends on the grouping.
    ``token-mean`` is the mean over all label tokens of the step, whatever the grouping.

    A micro-batch without any label token has no mean and adds nothing.

    Written as weights, the normalisation does not tie how many rows are computed at once.

    Raises:
        ValueError: Unknown normalisation, or examples that do not fill whole micro-batches.
    """
    if normalisation not in NORMALISATIONS:
        raise ValueError(
            f"unknown normalisation {normalisation!r}; known: {', '.join(NORMALISATIONS)}"
        )
    if normalisation == TOKEN_MEAN:
        return [1.0 / max(sum(label_counts), 1)] * len(label_counts)
    if micro_batch < 1 or len(label_counts) % micro_batch:
        raise ValueError(f"{len(label_counts)} examples do not fill micro-batches of {micro_batch}")
    groups = len(label_counts) // micro_batch
    weights: list[float] = []
    for start in range(0, len(label_counts), micro_batch):
        tokens = sum(label_counts[start : start + micro_batch])
        weights += [1.0 / (groups * tokens) if tokens else 0.0] * micro_batch
    return weights


def language_model_loss(
    model: PreTrainedModel, micro_batch: MicroBatch, *, chunk: int = 4096
) -> Tensor:
    """A micro-batch's share of the cross-entropy of a global batch.

    Where the output layer is all that stands between states and scores, the scores exist for
    ``chunk`` tokens at once. Other models go through their own forward pass; of their scores only
    a chunk is copied to fp32.

    Args:
        model: A causal language model, with adapters or without.
        micro_batch: Rows and weights.
        chunk: Most label tokens whose fp32 scores exist at once.

    Returns:
        A float32 scalar, in nats where the weights of the batch add up to 1.
    """
    from kit.lm.forward import unlike_plain_head
    from kit.lm.model import decoder, inner_model

    batch = micro_batch.batch
    rows, columns, targets = predicting_positions(batch.labels)
    weights = micro_batch.weights[rows]
    inputs = {
        "input_ids": batch.ids,
        "attention_mask": batch.attention_mask,
        "position_ids": batch.position_ids,
        "use_cache": False,
    }
    if unlike_plain_head(inner_model(model).config) is None:
        states = decoder(model)(**inputs).last_hidden_state[rows, columns]
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        return weighted_cross_entropy(states, head, targets, weights, chunk=chunk)
    scores = model(**inputs).logits[rows, columns]
    return weighted_cross_entropy(scores, as_they_are, targets, weights, chunk=chunk)


def as_they_are(scores: Tensor) -> Tensor:
    """The output layer of :func:`weighted_cross_entropy` where the scores are there already."""
    return scores


def weighted_cross_entropy(
    hidden: Tensor,
    output_layer: Callable[[Tensor], Tensor],
    targets: Tensor,
    weights: Tensor,
    *,
    chunk: int = 4096,
) -> Tensor:
    """Sum over tokens of weight x cross-entropy, with scores in fp32.

    Args:
        hidden: [N, d] states that predict the targets.
        output_layer: Maps [n, d] to scores [n, V]; the language-model head.
        targets: [N] int64.
        weights: [N] float32.
        chunk: Most tokens whose scores exist at once; with more than one chunk the scores are
            recomputed in the backward pass, so that memory stays at ``chunk`` x V.

    Returns:
        A float32 scalar.
    """

    def part(states: Tensor, wanted: Tensor, share: Tensor) -> Tensor:
        losses = cross_entropy(output_layer(states).float(), wanted, reduction="none")
        return (losses * share).sum()

    if hidden.shape[0] <= chunk:
        return part(hidden, targets, weights)
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    for start in range(0, hidden.shape[0], chunk):
        stop = start + chunk
        piece = (hidden[start:stop], targets[start:stop], weights[start:stop])
        total = total + checkpoint(part, *piece, use_reentrant=False)
    return total
