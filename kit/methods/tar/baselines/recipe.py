"""How a baseline is written down: what its training needs, and the terms of its loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Term:
    """One summand of a loss, on its own data: it is computed, and its gradient taken, by itself.

    Attributes:
        name: For messages.
        data: Names of the streams that it draws from.
        loss: Maps the model and a micro-batch to the micro-batch's share; a ``Counted``, or a
            tuple of them where there are several streams or the items are pairs.
    """

    name: str
    data: tuple[str, ...]
    loss: Callable[[PreTrainedModel, Any], Tensor]


Objective = Callable[[int], Sequence[Term]]
"""Terms of a step, counted from 0."""


@dataclass(frozen=True)
class Recipe:
    """Published training settings.

    Attributes:
        steps: Optimizer steps.
        learning_rate: Peak.
        warmup: Linear warm-up, steps.
        batch: Examples of each stream a step.
        optimizer: Name of the optimizer.
        source: Document and place.
    """

    steps: int
    learning_rate: float
    warmup: int
    batch: int
    optimizer: str
    source: str


TUNED = Recipe(
    steps=600,
    learning_rate=1e-5,
    warmup=100,
    batch=64,
    optimizer="schedule-free-adamw",
    source="paper G.1: best of a grid over learning rate, steps and warm-up",
)
"""Max Entropy, Min Posterior and LLMU."""
