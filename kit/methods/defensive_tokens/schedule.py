"""Which items a run consumes, decided before anything expensive.

A 200-step run at batch 16 sees 3,200 of 51,760 samples. With the order fixed first, only those need
self-labels: 16 times less work (defensive_tokens.md, 6).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

FROZEN_STREAM = "frozen-stream"
DATA_LOADER = "data-loader"
ORDERS = (FROZEN_STREAM, DATA_LOADER)


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


def make_schedule(
    items: int, *, steps: int, batch: int, seed: int, order: str = FROZEN_STREAM
) -> Schedule:
    """A fresh permutation for every epoch; an epoch's incomplete last batch is dropped.

    Args:
        items: How many there are.
        steps: Optimizer steps.
        batch: Items a step.
        seed: Of the permutations.
        order: ``frozen-stream`` draws from numpy's ``RandomState``, whose stream is frozen across
            versions. ``data-loader`` is what torch's shuffling DataLoader yields right after
            ``torch.manual_seed(seed)``: the follow-up's order, since nothing in its script draws a
            random number between the two (transfer-code, transfer/tiny_adapt.py, seed 42).

    Raises:
        ValueError: Fewer items than one batch, no steps, or an unknown order.
    """
    if steps < 1 or batch < 1:
        raise ValueError("a schedule needs at least one step and one item a step")
    if items < batch:
        raise ValueError(f"{items} items do not fill one batch of {batch}")
    if order not in ORDERS:
        raise ValueError(f"unknown order {order!r}; known: {', '.join(ORDERS)}")
    draw = _frozen_stream if order == FROZEN_STREAM else _data_loader
    return Schedule(tuple(islice(draw(items, batch, seed), steps * batch)), steps, batch)


def _frozen_stream(items: int, batch: int, seed: int) -> Iterator[int]:
    import numpy as np

    rng = np.random.RandomState(seed)
    while True:
        yield from rng.permutation(items)[: items - items % batch].tolist()


def _data_loader(items: int, batch: int, seed: int) -> Iterator[int]:
    import torch
    from torch.utils.data import DataLoader

    # The loader draws from torch's global generator when an epoch begins; whoever called goes on
    # with their own stream, and may draw between two of our items.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
    while True:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state)
            loader: DataLoader[int] = DataLoader(
                range(items),  # type: ignore[arg-type]
                batch_size=batch,
                shuffle=True,
                drop_last=True,
            )
            epoch = [int(index) for ids in loader for index in ids]
            state = torch.get_rng_state()
        yield from epoch


def steps_per_epoch(items: int, batch: int) -> int:
    """Whole batches in one epoch; the paper trains for one (DTP, "Training")."""
    return items // batch
