"""What the log's "steps" count, and how the two coefficients move over them.

The log's main tables call micro-batches steps; its epoch sweep calls optimizer steps so. 1,024
examples are 256 steps in the former and 32 in the latter, and are the same amount of training
(reference page, section 1.12).
"""

from __future__ import annotations

from dataclasses import dataclass

GLOBAL_BATCH = 32
"""Pairs of one optimizer step (reference page, section 1.8)."""
LOG_EVERY = 32
"""Micro-batches between two logged losses (reference page, section 1.12)."""
RAMP, CONSTANT, CIRCUIT_BREAKERS = "ramp", "constant", "circuit-breakers"
COEFFICIENT_SCHEDULES = (RAMP, CONSTANT, CIRCUIT_BREAKERS)


@dataclass(frozen=True)
class StepCount:
    """The length of one training run.

    Attributes:
        micro_batches: Of one process, over all epochs: "Steps" of the log's main tables.
        ramp: Micro-batches of one process in one epoch; the coefficients' ramp ends there.
        accumulation: Micro-batches of one process in one optimizer step.
        optimizer_steps: "steps" of the log's epoch sweep.
        last_logged: Micro-batch (from 0) whose losses are the last that the published code writes;
            one micro-batch of the first process, not a mean.
    """

    micro_batches: int
    ramp: int
    accumulation: int
    optimizer_steps: int
    last_logged: int


def count_steps(
    examples: int,
    micro_batch: int,
    world: int,
    *,
    epochs: int = 1,
    global_batch: int = GLOBAL_BATCH,
) -> StepCount:
    """Count the steps of a run.

    Args:
        examples: Pairs of retain and forget text in one epoch.
        micro_batch: Pairs of one process at a time ("pdbs").
        world: Processes.
        epochs: Passes over the pairs.
        global_batch: Pairs of one optimizer step, over all processes.

    Raises:
        ValueError: Numbers that do not divide. The published code rounds the accumulation down,
            which changes the batch without saying so.
    """
    if min(examples, micro_batch, world, epochs, global_batch) < 1:
        raise ValueError("examples, micro-batch, world, epochs and batch must be at least 1")
    at_once = micro_batch * world
    if global_batch % at_once:
        raise ValueError(
            f"{world} processes x {micro_batch} pairs do not divide a batch of {global_batch}"
        )
    if examples % global_batch:
        raise ValueError(f"{examples} pairs do not fill batches of {global_batch}")
    ramp = examples // at_once
    micro = ramp * epochs
    accumulation = global_batch // at_once
    return StepCount(
        micro_batches=micro,
        ramp=ramp,
        accumulation=accumulation,
        optimizer_steps=micro // accumulation,
        last_logged=(micro - 1) // LOG_EVERY * LOG_EVERY,
    )


@dataclass(frozen=True)
class Coefficients:
    """What the two losses of one micro-batch are multiplied with."""

    retain: float
    remove: float


def coefficients(
    micro_batch: int, *, retain: float, remove: float, ramp: int, schedule: str = RAMP
) -> Coefficients:
    """The coefficients of one micro-batch.

    ``ramp``: s = min(1, k / ramp); retain s, remove (1 - s / 4) (reference page, section 1.6).
    ``circuit-breakers``: retain s, remove (1 - s), as the method that it comes from has it
    (GraySwanAI/circuit-breakers, issue 2). ``constant``: neither moves.

    Args:
        micro_batch: k, counted from 0.
        retain: Coefficient of the retain loss at the end of the ramp.
        remove: Coefficient of the remove loss at its start.
        ramp: Micro-batches until s = 1; one epoch in the published code.
        schedule: One of :data:`COEFFICIENT_SCHEDULES`.

    Raises:
        ValueError: Unknown schedule, a negative coefficient or step, or a ramp of no length.
    """
    if schedule not in COEFFICIENT_SCHEDULES:
        known = ", ".join(COEFFICIENT_SCHEDULES)
        raise ValueError(f"unknown coefficient schedule {schedule!r}; known: {known}")
    if min(retain, remove) < 0 or micro_batch < 0 or ramp < 1:
        raise ValueError("coefficients and micro-batch are not negative, a ramp is at least 1 long")
    if schedule == CONSTANT:
        return Coefficients(retain, remove)
    share = min(1.0, micro_batch / ramp)
    fall = 0.25 if schedule == RAMP else 1.0
    return Coefficients(retain * share, remove * (1 - fall * share))


def share_of_pairs(examples: int, share: float, global_batch: int = GLOBAL_BATCH) -> int:
    """A share of the pairs of an epoch, in whole optimizer steps and at least one."""
    if share == 1:
        return examples
    return min(examples, max(1, round(examples * share / global_batch)) * global_batch)
