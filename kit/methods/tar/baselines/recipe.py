"""What a baseline's training needs beside its loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Terms = Iterator[tuple[str, "Tensor"]]
"""Named losses that add up. Each is computed when it is asked for, so that whoever takes their
gradients in turn never holds two graphs."""


@dataclass(frozen=True)
class Recipe:
    """Published training settings.

    Attributes:
        steps: Optimizer steps.
        learning_rate: Peak.
        warmup: Linear warm-up, steps.
        batch: Examples of each kind a step.
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
