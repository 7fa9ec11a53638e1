"""Who attacks in the inner loop: data, learning rate, and when the retain-then-forget one turns.

Drawn from the seed and the number of the outer step, so that all ranks agree without talking and a
resumed run draws what it would have drawn.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

SWITCH = (6.0, 3.0)
"""Beta distribution of the switch, ``--switching_point_coeffs`` of the released scripts; its mean
is two thirds of the inner steps."""


@dataclass(frozen=True)
class AdversaryType:
    """A kind of simulated fine-tuning.

    Attributes:
        name: For logs.
        data: Name of the data it trains on.
        share: How often it is drawn, relative to the others.
        first: Name of the data before the switch; none without a switch.
    """

    name: str
    data: str
    share: float = 1.0
    first: str | None = None


@dataclass(frozen=True)
class Adversary:
    """One that was drawn.

    Attributes:
        type: Its kind.
        learning_rate: Constant over the inner loop.
        optimizer: Name of its optimizer.
        switch: Inner steps on ``type.first`` before those on ``type.data``; 0 without a switch.
    """

    type: AdversaryType
    learning_rate: float
    optimizer: str
    switch: int

    def data(self, step: int) -> str:
        """Name of the data of an inner step, counted from 0."""
        return self.type.first if self.type.first and step < self.switch else self.type.data


def draw_adversary(
    types: Sequence[AdversaryType],
    learning_rates: Sequence[float],
    *,
    inner_steps: int,
    seed: int,
    outer_step: int,
    task: int = 0,
    optimizers: Sequence[str] = ("adamw",),
    switch: tuple[float, float] = SWITCH,
) -> Adversary:
    """Draw type by share, learning rate and optimizer uniformly, and the switch from a Beta.

    Source: modules/training.py ``tar_training_loop``; the switch is int(Beta x K).

    Raises:
        ValueError: Nothing to draw from.
    """
    if not types or not learning_rates or not optimizers:
        raise ValueError("an adversary needs a type, a learning rate and an optimizer")
    if any(kind.share < 0 for kind in types) or not sum(kind.share for kind in types) > 0:
        raise ValueError("the shares of the adversary types must not be negative, nor all zero")
    draw = random.Random(f"adversary/{seed}/{outer_step}/{task}")
    kind = draw.choices(types, weights=[t.share for t in types])[0]
    rate, optimizer = draw.choice(learning_rates), draw.choice(optimizers)
    turn = int(draw.betavariate(*switch) * inner_steps) if kind.first else 0
    return Adversary(type=kind, learning_rate=rate, optimizer=optimizer, switch=turn)


def check_data(types: Sequence[AdversaryType], known: Sequence[str]) -> None:
    """Refuse adversaries whose data nobody has.

    Raises:
        ValueError: Naming the adversary and the data.
    """
    for kind in types:
        for name in filter(None, (kind.first, kind.data)):
            if name not in known:
                raise ValueError(
                    f"adversary {kind.name!r} trains on {name!r}, which is not among the data: "
                    f"{', '.join(sorted(known)) or 'none'}"
                )
