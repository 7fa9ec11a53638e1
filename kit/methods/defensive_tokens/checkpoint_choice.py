"""Which checkpoint of a training counts, decided without looking at the test.

The documents report their best checkpoint on the test prompts ("Best: step_200"). Here the loss on
training items that no step consumed decides; the row ``<label>-chosen`` is that checkpoint's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def chosen_step(heldout: Mapping[str, float]) -> int:
    """The trained checkpoint with the lowest held-out loss, the earliest of equal ones.

    Args:
        heldout: Step (as JSON writes it) -> loss. Step 0 is no training and is never chosen.

    Raises:
        ValueError: No trained checkpoint.
    """
    losses = {int(step): loss for step, loss in heldout.items() if int(step) > 0}
    if not losses:
        raise ValueError("no trained checkpoint to choose from: checkpoints has only step 0")
    return min(losses, key=lambda step: (losses[step], step))


def with_chosen(
    scores: Mapping[str, Mapping[str, Any]], chosen: Mapping[str, int]
) -> dict[str, Mapping[str, Any]]:
    """The scores, and under ``<label>-chosen`` those of each chosen checkpoint that was evaluated.

    Args:
        scores: Token set -> scores.
        chosen: Label of a training -> step.
    """
    rows = {f"{label}-chosen": f"{label}-{step}" for label, step in chosen.items()}
    return {**scores, **{row: scores[name] for row, name in rows.items() if name in scores}}
