"""Micro-batches that know their share of the global batch.

A loss over a global batch is the sum of its micro-batches' shares, whatever process computes them
(:mod:`kit.train.engine`). The means here are over label tokens, tokens, positions or rows of the
whole global batch, so each micro-batch carries how many of those there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kit.methods.tar.dpo import Pairs
from kit.methods.tar.losses import MASKED
from kit.train.batches import MicroBatch, Process, micro_batches, share_of_process
from kit.train.batching import Batch, Example, collate

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Counted:
    """A micro-batch and the size of its global batch.

    Attributes:
        micro: Rows, and the weights of their label tokens.
        tokens: Real tokens of the global batch.
    """

    micro: MicroBatch
    tokens: int

    @property
    def batch(self) -> Batch:
        """The padded rows."""
        return self.micro.batch

    @property
    def label_weights(self) -> Tensor:
        """[B] weight of a row's label tokens in the mean over all of the global batch."""
        return self.micro.weights

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Ids of the rows, for messages."""
        return self.micro.item_ids

    def total(self, padding: str) -> float:
        """How many positions of the global batch a mean is over, with padding or without."""
        if padding == MASKED:
            return float(self.tokens)
        return self.batch.ids.numel() / self.micro.row_share


def counted_batches(
    examples: Sequence[Example],
    process: Process,
    *,
    rows: int,
    pad_id: int,
    width: int | None = None,
) -> list[Counted]:
    """This process's micro-batches of a global batch, all padded to one width.

    Args:
        examples: The global batch.
        process: The engine.
        rows: Most rows at once.
        pad_id: Fills rows.
        width: Columns; the longest example's if not given.

    Raises:
        ValueError: An empty batch, or one without labels; an example longer than ``width``.
    """
    if not examples:
        raise ValueError("an empty batch has no loss")
    columns = width or max(len(example.ids) for example in examples)
    made = micro_batches(examples, process, rows=rows, pad_id=pad_id, width=columns)
    tokens = sum(len(example.ids) for example in examples)
    return [Counted(micro, tokens) for micro in made]


@dataclass(frozen=True)
class PairExample:
    """A preferred and a rejected response to a prompt.

    Attributes:
        chosen: The preferred response: a refusal.
        rejected: The rejected one.
        reference_chosen: Summed log-probability under the initial model.
        reference_rejected: Likewise.
    """

    chosen: Example
    rejected: Example
    reference_chosen: float
    reference_rejected: float


@dataclass(frozen=True)
class CountedPairs:
    """A micro-batch of pairs.

    Attributes:
        pairs: The rows.
        row_share: Their share of the global batch.
    """

    pairs: Pairs
    row_share: float

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Ids of the preferred responses."""
        return self.pairs.chosen.item_ids


def pair_batches(
    examples: Sequence[PairExample], process: Process, *, rows: int, pad_id: int
) -> list[CountedPairs]:
    """This process's micro-batches of a global batch of pairs.

    Raises:
        ValueError: Fewer pairs than processes, or ``rows`` below 1.
    """
    if rows < 1:
        raise ValueError("a forward pass needs at least one row")
    mine = share_of_process(examples, process)
    made = []
    for start in range(0, len(mine), rows):
        part = mine[start : start + rows]
        values = [
            torch.tensor([getattr(e, name) for e in part], device=process.device)
            for name in ("reference_chosen", "reference_rejected")
        ]
        sides = [
            collate([getattr(e, name) for e in part], pad_id, process.device)
            for name in ("chosen", "rejected")
        ]
        pairs = Pairs(sides[0], sides[1], values[0], values[1])
        made.append(CountedPairs(pairs, len(part) / len(examples)))
    return made
