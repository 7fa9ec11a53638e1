"""Pairs of forget and retain text, and the order in which a run takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch

from kit.methods.checkpoint_transfer.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """Item i of a run is forget text i with retain text i.

    Attributes:
        forget: Token ids of each forget text.
        retain: Token ids of each retain text; as many.
        pad_id: Id that fills a batch.
        device: Where batches go.
    """

    forget: Sequence[Sequence[int]]
    retain: Sequence[Sequence[int]]
    pad_id: int
    device: str | torch.device = "cpu"

    def __post_init__(self) -> None:
        """Refuse texts that do not pair."""
        if len(self.forget) != len(self.retain) or not self.forget:
            raise ValueError(f"{len(self.forget)} forget texts, {len(self.retain)} retain texts")
        for kind, texts in (("forget", self.forget), ("retain", self.retain)):
            empty = [at for at, ids in enumerate(texts) if not ids]
            if empty:
                raise ValueError(f"{kind} text {empty[0]} has no tokens")

    def batch(self, kind: str, examples: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Right-padded ids [B, T] int64 and mask [B, T] bool.

        Args:
            kind: ``forget`` or ``retain``.
            examples: Numbers of the pairs, in the order of the rows.
        """
        lengths = self.lengths(kind, examples)
        mask = [[True] * length + [False] * (max(lengths) - length) for length in lengths]
        return self._ids(kind, examples), self._there(torch.tensor(mask, dtype=torch.bool))

    def inputs(self, kind: str, examples: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """As :meth:`batch`, with no mask where nothing is padded.

        So that nobody has to wait for the device to learn that nothing is.
        """
        if len(set(self.lengths(kind, examples))) == 1:
            return self._ids(kind, examples), None
        return self.batch(kind, examples)

    def lengths(self, kind: str, examples: Sequence[int]) -> list[int]:
        """Tokens of each text."""
        texts = self._texts(kind)
        return [len(texts[example]) for example in examples]

    def _texts(self, kind: str) -> Sequence[Sequence[int]]:
        return self.forget if kind == "forget" else self.retain

    def _ids(self, kind: str, examples: Sequence[int]) -> Tensor:
        rows = [self._texts(kind)[example] for example in examples]
        width = max(map(len, rows))
        ids = [[*row, *[self.pad_id] * (width - len(row))] for row in rows]
        return self._there(torch.tensor(ids, dtype=torch.long))

    def _there(self, values: Tensor) -> Tensor:
        """On the device; from page-locked memory, because other copies wait for queued work."""
        if torch.device(self.device).type == "cuda":
            values = values.pin_memory()
        return values.to(self.device, non_blocking=True)


@dataclass(frozen=True)
class MicroBatch:
    """Pairs that one process takes at a time.

    Attributes:
        number: k, counted from 0 in each process; decides the coefficients.
        examples: Numbers of the pairs.
    """

    number: int
    examples: tuple[int, ...]


def batches(recipe: Recipe, seed: int) -> list[list[MicroBatch]]:
    """Every optimizer step of a run, as its micro-batches.

    The recipe's processes are dealt micro-batches in turn, as a distributed sampler does. With
    gradients averaged a step has those of all of them, on however many processes it is computed;
    without, it has the first process's only.

    Args:
        recipe: Sizes.
        seed: Of the order; every epoch has its own.
    """
    count = recipe.steps
    rng = Random(f"order-{seed}")
    micro: list[list[MicroBatch]] = []
    for epoch in range(recipe.epochs):
        order = rng.sample(range(recipe.examples), recipe.examples)
        for turn in range(count.ramp):
            number = epoch * count.ramp + turn
            at_once = []
            for process in range(recipe.world):
                start = (turn * recipe.world + process) * recipe.micro_batch
                examples = tuple(order[start : start + recipe.micro_batch])
                at_once.append(MicroBatch(number, examples))
            micro.append(at_once if recipe.all_reduce else at_once[:1])
    starts = range(0, len(micro), count.accumulation)
    return [
        [part for at_once in micro[start : start + count.accumulation] for part in at_once]
        for start in starts
    ]
