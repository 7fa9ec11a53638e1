"""Attack settings drawn at random: what an attacker would try who does not know which works."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

from kit.tampering.attack import Attack, Phase
from kit.train.lora import Lora
from kit.train.optimizers import OptimizerSpec, ScheduleFreeAdamW
from kit.train.schedules import Schedule


@dataclass(frozen=True)
class Space:
    """What a search may change; what is empty stays as the base has it.

    Attributes:
        base: The attack that is varied.
        rates: Lowest and highest learning rate; drawn uniformly in the logarithm.
        optimizers: Each drawn with its own settings but the drawn rate.
        batches: Examples a step.
        schedules: Schedule-free optimizers go without.
        phases: What is trained on.
        adapters: ``None`` is a full attack.
    """

    base: Attack
    rates: tuple[float, float]
    optimizers: tuple[OptimizerSpec, ...] = ()
    batches: tuple[int, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    phases: tuple[tuple[Phase, ...], ...] = ()
    adapters: tuple[Lora | None, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a range that is none."""
        low, high = self.rates
        if not 0 < low <= high:
            raise ValueError(f"learning rates from {low} to {high} are no range above 0")


def draw_attacks(space: Space, trials: int, *, seed: int) -> list[Attack]:
    """``trials`` attacks named ``trial-000`` and so on, each with a data order of its own.

    The first trials of a longer search are those of a shorter one.

    Raises:
        ValueError: No trials.
    """
    if trials < 1:
        raise ValueError(f"a search of {trials} trials")
    return [_draw(space, number, seed) for number in range(trials)]


def _draw(space: Space, number: int, seed: int) -> Attack:
    rng = random.Random(f"search/{seed}/{number}")
    base = space.base
    rate = math.exp(rng.uniform(*map(math.log, space.rates)))
    optimizer = rng.choice(space.optimizers or (base.optimizer,))
    schedule = rng.choice(space.schedules or (base.schedule,))
    return replace(
        base,
        name=f"trial-{number:03d}",
        optimizer=replace(optimizer, learning_rate=rate),
        schedule=Schedule() if isinstance(optimizer, ScheduleFreeAdamW) else schedule,
        batch=rng.choice(space.batches or (base.batch,)),
        phases=rng.choice(space.phases or (base.phases,)),
        lora=rng.choice(space.adapters or (base.lora,)),
        seed=rng.randrange(2**31),
    )
