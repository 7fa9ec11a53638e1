"""Which items a run consumes, decided before anything expensive.

A 200-step run at batch 16 sees 3,200 of 51,760 samples. With the order fixed first, only those need
self-labels: 16 times less work (defensive_tokens.md, 6).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """The order in which items are consumed.

    Attributes:
        order: Item indices, steps x batch of them.
        steps: Optimizer steps.
        batch: Items a step.
    """

    order: tuple[int, ...]
    steps: int
    batch: int

    def step(self, step: int) -> tuple[int, ...]:
        """Item indices of one step, counted from 0."""
        if not 0 <= step < self.steps:
            raise ValueError(f"step {step} of a schedule of {self.steps} steps")
        return self.order[step * self.batch : (step + 1) * self.batch]

    def consumed(self) -> list[int]:
        """The distinct items, in the order of their first use."""
        return list(dict.fromkeys(self.order))


def make_schedule(items: int, *, steps: int, batch: int, seed: int) -> Schedule:
    """A fresh permutation for every epoch; an epoch's incomplete last batch is dropped.

    The permutations are numpy's ``RandomState``, whose stream is frozen across versions. The
    follow-up used a shuffling DataLoader whose state depends on what drew random numbers before;
    its exact order is not recoverable.

    Raises:
        ValueError: Fewer items than one batch, or no steps.
    """
    import numpy as np

    if steps < 1 or batch < 1:
        raise ValueError("a schedule needs at least one step and one item a step")
    if items < batch:
        raise ValueError(f"{items} items do not fill one batch of {batch}")
    rng = np.random.RandomState(seed)
    usable = items - items % batch
    order: list[int] = []
    while len(order) < steps * batch:
        order += rng.permutation(items)[:usable].tolist()
    return Schedule(tuple(order[: steps * batch]), steps, batch)


def steps_per_epoch(items: int, batch: int) -> int:
    """Whole batches in one epoch; the paper trains for one (DTP, "Training")."""
    return items // batch
