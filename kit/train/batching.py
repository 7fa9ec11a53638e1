"""Right-padded training batches with explicit masks.

Whether a position is padding is known from its length, never from ``ids != pad``
(defensive_tokens.md, P15).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = -100


@dataclass(frozen=True)
class Example:
    """One tokenised training example.

    Attributes:
        id: Stable id, named in errors and logs.
        ids: Prompt and answer, prefix slots included.
        prompt_length: How many leading ids carry no loss; at least 1. All of them: the example
            keeps its place in its micro-batch and has no part in the loss.
        hidden: Positions of further ids that carry no loss.
    """

    id: str
    ids: tuple[int, ...]
    prompt_length: int
    hidden: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Refuse an example without a prompt, or with a prompt longer than itself."""
        if not 0 < self.prompt_length <= len(self.ids):
            raise ValueError(
                f"example {self.id}: {self.prompt_length} prompt ids of {len(self.ids)}; at least "
                "one is needed, and at most all"
            )

    @property
    def labels(self) -> int:
        """Number of label tokens."""
        answer = range(self.prompt_length, len(self.ids))
        return len(answer) - sum(position in answer for position in self.hidden)


@dataclass(frozen=True)
class Batch:
    """Right-padded examples.

    Attributes:
        ids: [B, T] int64.
        labels: [B, T] int64; -100 on prompt, hidden ids and padding.
        attention_mask: [B, T] bool; true on real tokens.
        position_ids: [B, T] int64; 0, 1, 2, ... from the first column of every row.
        item_ids: B example ids.
    """

    ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    item_ids: tuple[str, ...]


def collate(
    examples: Sequence[Example],
    pad_id: int,
    device: torch.device | str = "cpu",
    *,
    width: int | None = None,
) -> Batch:
    """One batch, in the order given.

    Args:
        examples: The rows.
        pad_id: Fills them up.
        device: Of the tensors.
        width: Columns; the longest example's if not given.

    Raises:
        ValueError: No examples, or one that is longer than ``width``.
    """
    if not examples:
        raise ValueError("a batch needs at least one example")
    longest = max(len(example.ids) for example in examples)
    width = longest if width is None else width
    if longest > width:
        raise ValueError(f"an example of {longest} tokens does not fit {width} columns")
    ids, labels, mask = [], [], []
    for example in examples:
        padding = width - len(example.ids)
        answer = [
            IGNORE if position in example.hidden else token
            for position, token in enumerate(example.ids)
            if position >= example.prompt_length
        ]
        ids.append([*example.ids, *[pad_id] * padding])
        labels.append([IGNORE] * example.prompt_length + answer + [IGNORE] * padding)
        mask.append([True] * len(example.ids) + [False] * padding)
    return Batch(
        ids=torch.tensor(ids, dtype=torch.long, device=device),
        labels=torch.tensor(labels, dtype=torch.long, device=device),
        attention_mask=torch.tensor(mask, dtype=torch.bool, device=device),
        position_ids=torch.arange(width, device=device).expand(len(examples), width),
        item_ids=tuple(example.id for example in examples),
    )


def forward_groups(lengths: Sequence[int], rows: int, *, by_length: bool = True) -> list[list[int]]:
    """Split one step's examples into forward passes of at most ``rows`` rows.

    Args:
        lengths: Token count of each example.
        rows: Most examples in a forward pass; bounds memory.
        by_length: Put examples of similar length together, so that little padding is computed.
            Which forward pass an example is in does not change its share of the loss.

    Returns:
        Lists of indices into ``lengths``.

    Raises:
        ValueError: ``rows`` below 1.
    """
    if rows < 1:
        raise ValueError("a forward pass needs at least one row")
    order = list(range(len(lengths)))
    if by_length:
        order.sort(key=lambda i: (lengths[i], i))
    return [order[i : i + rows] for i in range(0, len(order), rows)]


def even_groups(lengths: Sequence[int], rows: int) -> list[list[int]]:
    """Split one step's examples into as few forward passes as ``rows`` allows, of even length.

    For packed examples, where nothing is padded and the memory of a pass grows with its tokens:
    the longest example goes first, each into the shortest pass that still has room.

    Args:
        lengths: Token count of each example.
        rows: Most examples in a forward pass; bounds memory.

    Returns:
        Lists of indices into ``lengths``, ascending.

    Raises:
        ValueError: ``rows`` below 1.
    """
    if rows < 1:
        raise ValueError("a forward pass needs at least one row")
    groups: list[list[int]] = [[] for _ in range(-(-len(lengths) // rows))]
    tokens = [0] * len(groups)
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        shortest = min(
            (g for g in range(len(groups)) if len(groups[g]) < rows), key=lambda g: (tokens[g], g)
        )
        groups[shortest].append(index)
        tokens[shortest] += lengths[index]
    return [sorted(group) for group in groups]
