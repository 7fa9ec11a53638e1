"""What training can fail with."""

from __future__ import annotations

import math
from collections.abc import Sequence

HIGHEST_LOSS = 100.0
"""Nats a token above which a training has diverged. A guess among 128,256 tokens costs 11.8 nats,
and a prefix drawn at random begins below 20; a label of probability e^-100 is no language model."""


class TrainingDiverged(Exception):
    """The loss, or what an update made of the parameters, cannot be used.

    Attributes:
        step: Optimizer step, counted from 0, in which it was seen.
        batch_ids: Ids of the examples in that step.
        last_good_checkpoint: Last step at which a checkpoint was written, or ``None``.
        reason: What was seen, as the predicate of "step N".
        so_far: What a loop that stopped had done by then (:class:`kit.train.loop.FineTuned`).
    """

    so_far: object = None

    def __init__(
        self,
        step: int,
        batch_ids: Sequence[str],
        last_good_checkpoint: int | None,
        reason: str = "has a loss that is not finite",
    ) -> None:
        """Keep the fields and write the sentence."""
        self.step = step
        self.batch_ids = tuple(batch_ids)
        self.last_good_checkpoint = last_good_checkpoint
        self.reason = reason
        shown = ", ".join(self.batch_ids[:4]) + (", ..." if len(self.batch_ids) > 4 else "")
        kept = "none" if last_good_checkpoint is None else f"step {last_good_checkpoint}"
        super().__init__(f"step {step} {reason} (examples {shown}); last good checkpoint: {kept}")


def divergence(loss: float, highest: float = HIGHEST_LOSS) -> str:
    """Why training cannot go on from this loss, in nats a token; empty when it can."""
    if not math.isfinite(loss):
        return f"has a loss that is not finite ({loss})"
    if loss > highest:
        return f"has a loss of {loss:.4g} nats a token, above {highest:g}"
    return ""
