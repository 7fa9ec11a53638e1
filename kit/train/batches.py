"""From tokens to the micro-batches of one process.

A micro-batch carries what it weighs in the global batch's loss, so that a loss function returns its
share (:mod:`kit.train.engine`) without asking anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch

from kit.train.batching import Batch, Example, collate
from kit.train.losses import TOKEN_MEAN, token_weights

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


class Process(Protocol):
    """Which process of how many this is, and where its tensors go; every engine is that."""

    @property
    def rank(self) -> int:
        """From 0."""
        ...

    @property
    def world_size(self) -> int:
        """How many."""
        ...

    @property
    def device(self) -> torch.device:
        """Of the tensors."""
        ...


@dataclass(frozen=True)
class MicroBatch:
    """What goes through a model at once.

    Attributes:
        batch: B padded rows.
        weights: [B] float32, of one label token of each row in the global batch's loss. They add
            up to 1 over all label tokens of all processes.
        row_share: B / rows of the global batch: what a mean over rows is multiplied by.
    """

    batch: Batch
    weights: Tensor
    row_share: float

    @property
    def item_ids(self) -> tuple[str, ...]:
        """B example ids."""
        return self.batch.item_ids


def examples_of_tokens(
    sequences: Mapping[str, Sequence[int]], max_length: int | None = None
) -> list[Example]:
    """Tokenised texts whose every token but the first is a label, by id, in the order given.

    Args:
        sequences: At least two tokens each.
        max_length: Texts are cut here.

    Raises:
        ValueError: A text that has nothing to predict.
    """
    made = []
    for name, ids in sequences.items():
        cut = tuple(ids[:max_length])
        if len(cut) < 2:
            raise ValueError(f"text {name}: nothing is predicted in {len(cut)} tokens")
        made.append(Example(name, cut, 1))
    return made


def chunks(
    ids: Sequence[int], length: int, *, most: int | None = None, shortest: int = 2
) -> list[tuple[int, ...]]:
    """A long text in pieces of ``length`` tokens, the last as long as what is left.

    Args:
        ids: Token ids.
        length: Tokens a piece.
        most: Pieces that are kept, from the start.
        shortest: A shorter last piece is dropped.
    """
    pieces = [tuple(ids[start : start + length]) for start in range(0, len(ids), length)]
    return [piece for piece in pieces[:most] if len(piece) >= shortest]


def share_of_process(items: Sequence[T], process: Process) -> Sequence[T]:
    """The items of a global batch that this process computes: a run of them, as even as can be.

    Raises:
        ValueError: Fewer items than processes.
    """
    if len(items) < process.world_size:
        raise ValueError(
            f"a batch of {len(items)} leaves some of {process.world_size} processes idle"
        )
    start, stop = (len(items) * (process.rank + i) // process.world_size for i in (0, 1))
    return items[start:stop]


def micro_batches(
    examples: Sequence[Example],
    process: Process,
    *,
    rows: int,
    pad_id: int,
    width: int | None = None,
    normalisation: str = TOKEN_MEAN,
    mean_over: int = 1,
) -> list[MicroBatch]:
    """This process's part of a global batch.

    Args:
        examples: The global batch, the same in every process.
        process: The engine.
        rows: Most rows in a forward pass; bounds memory and changes no loss.
        pad_id: Fills rows; never attended to and never a label.
        width: Pad to this many columns instead of the longest row of each micro-batch.
        normalisation: Of the loss over the global batch (:func:`kit.train.losses.token_weights`).
        mean_over: With ``micro-mean``: rows whose tokens are averaged before the means are.

    Raises:
        ValueError: No label in the whole batch, fewer examples than processes, ``rows`` below 1.
    """
    counts = [example.labels for example in examples]
    if not any(counts):
        raise ValueError(f"no label in a batch of {len(examples)} examples")
    if rows < 1:
        raise ValueError("a forward pass needs at least one row")
    weights = token_weights(counts, micro_batch=mean_over, normalisation=normalisation)
    mine = share_of_process(list(zip(examples, weights, strict=True)), process)
    made = []
    for start in range(0, len(mine), rows):
        part = mine[start : start + rows]
        made.append(
            MicroBatch(
                collate([example for example, _ in part], pad_id, process.device, width=width),
                torch.tensor([w for _, w in part], dtype=torch.float32, device=process.device),
                len(part) / len(examples),
            )
        )
    return made
