"""Greedy coordinate gradient: a search over token ids for a text that makes a model say a target.

Zou et al. 2023, "Universal and Transferable Adversarial Attacks on Aligned Language Models" (arXiv
2307.15043), algorithm 1, for a single prompt. Each step takes the gradient of the loss with respect
to the one-hot vectors of the searched tokens, keeps the k most promising replacements of every
position, draws a batch of texts that differ from the present text in a single token, and goes on
with the draw that has the lowest loss, even where that is higher than before. Beside this walk the
best text so far is kept, as SecAlign's harness does (gcg/base.py at 3fc9c9c); it is what is
measured.

Many items are searched side by side. Each draws from a generator of its own, so what is searched
beside it changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from torch import Tensor

Suffix = tuple[int, ...]


@dataclass(frozen=True)
class SearchSettings:
    """How long and how widely is searched.

    Attributes:
        steps: Of the search.
        candidates: Texts tried in each step (B of algorithm 1). All single replacements are tried,
            each once, where they are no more than this.
        top_k: Replacements of each position that may be drawn (k of algorithm 1).
        measure_at: Steps whose kept text is reported, 0 for the start; the last step among them.
        stop: An item's search ends when a reported text works on the attacker's own model.
        seed: Of the draws.
    """

    steps: int
    candidates: int
    top_k: int
    measure_at: tuple[int, ...]
    stop: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a search that tries nothing, or whose end is not reported."""
        if min(self.steps, self.candidates, self.top_k) < 1:
            raise ValueError("steps, candidates and top_k must be at least 1")
        if list(self.measure_at) != sorted(set(self.measure_at)) or self.measure_at[:1] < (0,):
            raise ValueError(f"steps to report must rise from 0 on: {list(self.measure_at)}")
        if self.measure_at[-1:] != (self.steps,):
            raise ValueError(f"the last step to report must be step {self.steps}, the last one")

    @property
    def queries(self) -> tuple[int, ...]:
        """What the attacker has asked his model for an item up to each reported step: a loss for
        every text tried, and a gradient a step."""
        return tuple(step * (self.candidates + 1) for step in self.measure_at)


@dataclass(frozen=True)
class Kept:
    """The best text of an item at a reported step.

    Attributes:
        step: Steps done.
        loss: Its loss, the lowest so far.
        suffix: Its searched token ids.
    """

    step: int
    loss: float
    suffix: Suffix


class Objective(Protocol):
    """The loss of suffixes, for several items at once."""

    @property
    def allowed(self) -> Tensor:
        """[A] int64, the ids that may be searched."""

    def losses(self, items: Tensor, suffixes: Tensor) -> Tensor:
        """Loss [M] of suffixes [M, S], each of the item whose number stands in ``items`` [M]."""

    def gradient(self, items: Tensor, suffixes: Tensor) -> Tensor:
        """Gradient [M, S, A] of each loss with respect to the one-hot vectors of its suffix."""


def search(
    objective: Objective,
    starts: Tensor,
    names: Sequence[str],
    settings: SearchSettings,
    *,
    can_be_written: Callable[[int, Suffix], bool],
    works: Callable[[Sequence[tuple[int, Suffix]]], Sequence[bool]] | None = None,
) -> list[list[Kept]]:
    """Search a suffix for every item.

    Args:
        objective: The loss, lower where the target is more likely.
        starts: [N, S] int64, the first text of each item.
        names: [N], of the items; they decide what is drawn.
        settings: Of the search.
        can_be_written: Whether item and suffix, written as text, become these very tokens again;
            others cannot be sent to anybody and are passed over.
        works: Whether the pairs of item and suffix succeed on the attacker's own model; asked only
            with ``settings.stop``.

    Returns:
        For each item its kept text at every reported step; behind a stop the text that worked.
    """
    device = starts.device
    draws = [_generator(settings.seed, name) for name in names]
    every = torch.arange(len(names), device=device)
    current, kept = starts.clone(), starts.clone()
    walked = objective.losses(every, starts)
    lowest = walked.clone()
    reported: list[list[Kept]] = [[] for _ in names]
    alive = list(range(len(names)))
    for step in range(settings.steps + 1):
        if step:
            rows = torch.tensor(alive, device=device)
            drawn = _step(
                objective,
                rows,
                current[rows],
                walked[rows],
                settings,
                [draws[i] for i in alive],
                can_be_written,
            )
            current[rows], walked[rows] = drawn
            better = rows[walked[rows] < lowest[rows]]
            kept[better], lowest[better] = current[better], walked[better]
        if step not in settings.measure_at:
            continue
        for i in alive:
            reported[i].append(Kept(step, float(lowest[i]), tuple(kept[i].tolist())))
        if settings.stop and works is not None:
            hits = works([(i, reported[i][-1].suffix) for i in alive])
            alive = [i for i, hit in zip(alive, hits, strict=True) if not hit]
        if not alive:
            break
    return [_to_the_end(points, settings) for points in reported]


def swaps(top: Tensor, suffix: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Texts that differ from a suffix in at most one token.

    Position and replacement are drawn uniformly, as in algorithm 1; where there are no more than
    ``count`` replacements in all, every one of them is taken once.

    Args:
        top: [S, k] int64, replacement ids of each position.
        suffix: [S] int64.
        count: Most texts.
        generator: On the CPU, so that every device draws alike.

    Returns:
        [B, S] int64.
    """
    length, width = top.shape
    if length * width <= count:
        where = torch.arange(length).repeat_interleave(width)
        which = torch.arange(width).repeat(length)
    else:
        where = torch.randint(length, (count,), generator=generator)
        which = torch.randint(width, (count,), generator=generator)
    where, which = where.to(suffix.device), which.to(suffix.device)
    texts = suffix.repeat(len(where), 1)
    texts[torch.arange(len(where), device=suffix.device), where] = top[where, which]
    return texts


def _step(
    objective: Objective,
    items: Tensor,
    current: Tensor,
    walked: Tensor,
    settings: SearchSettings,
    draws: Sequence[torch.Generator],
    can_be_written: Callable[[int, Suffix], bool],
) -> tuple[Tensor, Tensor]:
    """The next text of every item and its loss; the present one where none can be written."""
    gradient = objective.gradient(items, current)
    width = min(settings.top_k, gradient.shape[2])
    top = objective.allowed[(-gradient).topk(width, dim=2).indices]
    texts = torch.stack(
        [
            swaps(row, suffix, settings.candidates, draw)
            for row, suffix, draw in zip(top, current, draws, strict=True)
        ]
    )
    count = texts.shape[1]
    losses = objective.losses(items.repeat_interleave(count), texts.flatten(0, 1))
    losses = losses.view(len(items), count)
    current, walked = current.clone(), walked.clone()
    order = losses.argsort(dim=1, stable=True).tolist()
    for row, item in enumerate(items.tolist()):
        for column in order[row]:
            if can_be_written(item, tuple(texts[row, column].tolist())):
                current[row], walked[row] = texts[row, column], losses[row, column]
                break
    return current, walked


def _to_the_end(points: list[Kept], settings: SearchSettings) -> list[Kept]:
    last = points[-1]
    rest = settings.measure_at[len(points) :]
    return points + [Kept(step, last.loss, last.suffix) for step in rest]


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"gcg/{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
