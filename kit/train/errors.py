"""What training can fail with."""

from __future__ import annotations

from collections.abc import Sequence


class TrainingDiverged(Exception):
    """The loss became NaN or infinite.

    Attributes:
        step: Optimizer step, counted from 0, whose loss was not finite; it was not applied.
        batch_ids: Ids of the examples in that step.
        last_good_checkpoint: Last step at which a checkpoint was written, or ``None``.
    """

    def __init__(
        self, step: int, batch_ids: Sequence[str], last_good_checkpoint: int | None
    ) -> None:
        """Keep the fields and write the sentence."""
        self.step = step
        self.batch_ids = tuple(batch_ids)
        self.last_good_checkpoint = last_good_checkpoint
        shown = ", ".join(self.batch_ids[:4]) + (", ..." if len(self.batch_ids) > 4 else "")
        kept = "none" if last_good_checkpoint is None else f"step {last_good_checkpoint}"
        super().__init__(
            f"the loss of step {step} is not finite (examples {shown}); "
            f"last good checkpoint: {kept}"
        )
