"""Learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math

SCHEDULES = ("constant", "linear", "cosine")


def learning_rate(
    step: int, *, peak: float, steps: int, schedule: str = "constant", warmup: int = 0
) -> float:
    """Learning rate of one optimizer step.

    Args:
        step: Counted from 0.
        peak: Highest rate.
        steps: Steps of the whole run; the decays would reach zero at this step.
        schedule: ``constant``, ``linear`` or ``cosine``, applied after the warm-up.
        warmup: Steps of linear rise; step 0 takes peak / warmup.

    Raises:
        ValueError: Unknown schedule, or a warm-up as long as the run.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule {schedule!r}; known: {', '.join(SCHEDULES)}")
    if warmup and warmup >= steps:
        raise ValueError(f"a warm-up of {warmup} steps does not fit a run of {steps}")
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(steps - warmup, 1)
    if schedule == "linear":
        return peak * (1 - done)
    if schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    return peak
