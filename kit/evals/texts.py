"""Loss and entropy of a model on texts: what an attack moves first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kit.lm.model import output_rows
from kit.train.batching import IGNORE, Example, collate
from kit.train.costs import SCORES

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

POSITIONS = 1024
"""Positions whose fp32 distribution exists at once."""


@dataclass(frozen=True)
class TextScore:
    """Means over label tokens.

    Attributes:
        loss: Cross-entropy of the label, nats.
        entropy: Of the distribution that predicts it, nats; at most the logarithm of the
            vocabulary.
        tokens: Label tokens.
    """

    loss: float
    entropy: float
    tokens: int


@torch.no_grad()
def text_score(
    model: PreTrainedModel, examples: Sequence[Example], pad_id: int, *, rows: int = 32
) -> TextScore:
    """Loss and entropy of a causal language model at the label tokens of examples.

    Args:
        model: In evaluation mode, with adapters or without.
        examples: Texts with their prompts.
        pad_id: Fills rows; changes nothing.
        rows: Most texts in a forward pass; fewer where their scores would be more than
            :data:`kit.train.costs.SCORES`.

    Raises:
        ValueError: No label token in any example.
    """
    device = next(model.parameters()).device
    order = sorted(examples, key=lambda example: len(example.ids))
    loss, entropy, count = 0.0, 0.0, 0
    for texts in _batches(order, rows, SCORES // output_rows(model)):
        batch = collate(texts, pad_id, device)
        scores = model(
            input_ids=batch.ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).logits[:, :-1]
        labels = batch.labels[:, 1:]
        wanted = labels != IGNORE
        pairs = zip(
            torch.split(scores[wanted], POSITIONS),
            torch.split(labels[wanted], POSITIONS),
            strict=True,
        )
        for part, targets in pairs:
            of_loss, of_entropy = _sums(part, targets)
            loss, entropy = loss + of_loss, entropy + of_entropy
        count += int(wanted.sum())
    if not count:
        raise ValueError("no token of the texts is a label")
    return TextScore(loss / count, entropy / count, count)


def _batches(order: Sequence[Example], rows: int, positions: int) -> Iterator[list[Example]]:
    """Texts by rising length, with at most so many rows and padded positions; at least one."""
    texts: list[Example] = []
    for example in order:
        if texts and (len(texts) == rows or (len(texts) + 1) * len(example.ids) > positions):
            yield texts
            texts = []
        texts.append(example)
    if texts:
        yield texts


def _sums(scores: Tensor, targets: Tensor) -> tuple[float, float]:
    log_p = torch.log_softmax(scores.float(), dim=-1)
    losses = -log_p.gather(1, targets[:, None])
    # A token of probability 0 has log-probability -inf and no part in the entropy.
    entropies = torch.special.entr(log_p.exp()).sum()
    return float(losses.double().sum()), float(entropies.double())
