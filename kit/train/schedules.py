"""Learning-rate schedules as pure functions of the optimizer step.

Never of micro-batches or processes: a schedule that is advanced by hand runs faster where there
are more of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

CONSTANT = "constant"
LINEAR = "linear"
COSINE = "cosine"
RESTARTS = "restarts"
SCHEDULES = (CONSTANT, LINEAR, COSINE, RESTARTS)


@dataclass(frozen=True)
class Schedule:
    """How the rate moves over a run.

    Attributes:
        name: ``constant``; ``linear`` or ``cosine`` decay, which would reach the floor at the step
            after the last; ``restarts``, cosine decay that begins again (SGDR, Loshchilov and
            Hutter 2017).
        warmup: Optimizer steps of linear rise before that; step 0 takes peak / warmup.
        floor: Share of the peak that a decay ends at.
        period: ``restarts``: optimizer steps of the first decay.
        growth: ``restarts``: how many times longer each decay is than the one before.
    """

    name: str = CONSTANT
    warmup: int = 0
    floor: float = 0.0
    period: int = 0
    growth: int = 1

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        if self.name not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.name!r}; known: {', '.join(SCHEDULES)}")
        if self.warmup < 0 or self.growth < 1 or not 0 <= self.floor <= 1:
            raise ValueError(
                f"a schedule needs warmup >= 0, growth >= 1 and a floor from 0 to 1, not {self}"
            )
        if (self.name == RESTARTS) != (self.period > 0):
            raise ValueError(f"schedule {self.name} with a period of {self.period} steps")

    def rate(self, step: int, *, peak: float, steps: int) -> float:
        """Learning rate of one optimizer step.

        Args:
            step: Counted from 0.
            peak: Highest rate.
            steps: Steps of the whole run.

        Raises:
            ValueError: A warm-up as long as the run.
        """
        if self.warmup and self.warmup >= steps:
            raise ValueError(f"a warm-up of {self.warmup} steps does not fit a run of {steps}")
        if step < self.warmup:
            return peak * (step + 1) / self.warmup
        if self.name == CONSTANT:
            return peak
        bottom = peak * self.floor
        done = self._done(step - self.warmup, max(steps - self.warmup, 1))
        if self.name == LINEAR:
            return bottom + (peak - bottom) * (1 - done)
        return bottom + (peak - bottom) * 0.5 * (1 + math.cos(math.pi * done))

    def _done(self, step: int, steps: int) -> float:
        """Share of the decay, or of the present one of several, that lies behind."""
        if self.name != RESTARTS:
            return step / steps
        period = self.period
        while step >= period:
            step -= period
            period *= self.growth
        return step / period


def learning_rate(
    step: int, *, peak: float, steps: int, schedule: str = CONSTANT, warmup: int = 0
) -> float:
    """Learning rate of one optimizer step, of a schedule that has only a name and a warm-up.

    Args:
        step: Counted from 0.
        peak: Highest rate.
        steps: Steps of the whole run; the decays would reach zero at this step.
        schedule: ``constant``, ``linear`` or ``cosine``, applied after the warm-up.
        warmup: Steps of linear rise; step 0 takes peak / warmup.

    Raises:
        ValueError: Unknown schedule, or a warm-up as long as the run.
    """
    return Schedule(schedule, warmup).rate(step, peak=peak, steps=steps)
