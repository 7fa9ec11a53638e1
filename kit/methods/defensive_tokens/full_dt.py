"""Full DefensiveTokens training: a random start, one epoch (DTP 3.3 and "Training")."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from kit.lm.prefix import BEFORE_BOS
from kit.methods.defensive_tokens.examples import AS_GENERATED, Encoding
from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.prefix_training.state import PrefixState, start
from kit.methods.defensive_tokens.recipe import Recipe
from kit.methods.defensive_tokens.schedule import steps_per_epoch
from kit.methods.defensive_tokens.self_label import NO_TURN
from kit.methods.defensive_tokens.struq import STRUQ
from kit.methods.defensive_tokens.transfer import normal_init

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = 5  # DTP 3.3
LEARNING_RATE = 0.1  # DTP, "Training"


def recipe(
    samples: int,
    *,
    micro_batch: int = 4,
    accumulation: int = 32,
    schedule: str = "cosine",
    warmup_share: float = 0.03,
    checkpoint_every: int | None = None,
    seed: int = 42,
) -> Recipe:
    """One epoch over ``samples`` samples with StruQ's mixture.

    The paper states the learning rate, the epoch and the position. Optimizer, batch 128 and the
    cosine schedule with 3% warm-up are inherited from the authors' other code base and are not
    confirmed for this training (reference page, section 1.1). That code base cuts at 512 ids; here
    a self-label of up to 512 is kept whole.
    """
    batch = micro_batch * accumulation
    steps = steps_per_epoch(samples, batch)
    if steps < 1:
        raise ValueError(f"{samples} samples do not fill one batch of {batch}")
    every = checkpoint_every or steps
    return Recipe(
        mixture=STRUQ,
        encoding=Encoding(layout=BEFORE_BOS, label_tokens=AS_GENERATED),
        training=PrefixTraining(
            steps=steps,
            micro_batch=micro_batch,
            accumulation=accumulation,
            learning_rate=LEARNING_RATE,
            schedule=schedule,
            warmup=ceil(warmup_share * steps),  # as transformers' trainer rounds
            checkpoint_steps=tuple(sorted({*range(0, steps, every), steps})),
        ),
        empty_data=NO_TURN,
        seed=seed,
    )


def initial_state(width: int, *, seed: int, n: int = TOKENS) -> PrefixState:
    """Start from t ~ N(0, I) (DTP, Algorithm 1)."""
    return start(normal_init(n, width, seed))


def state_from(prefix: Tensor) -> PrefixState:
    """Start from given vectors [n, d], for example a transferred prefix."""
    return start(prefix)
