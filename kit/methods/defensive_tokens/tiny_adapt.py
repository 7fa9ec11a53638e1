"""Tiny-adapt: 200 steps on transferred tokens (tiny-adapt note, "Setup")."""

from __future__ import annotations

from dataclasses import replace

from kit.lm.prefix import BEFORE_BOS
from kit.methods.defensive_tokens.examples import AS_GENERATED, AS_TEXT, Encoding
from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.recipe import Recipe
from kit.methods.defensive_tokens.self_label import EMPTY_TURN, NO_TURN
from kit.methods.defensive_tokens.struq import AS_REPORTED, STRUQ

# tiny-adapt note, "Setup": rate 0.1, no weight decay, 4 x 4, 200 steps, saved at 25 to 200.
# 0 is the transferred prefix, the note's "Baseline" row.
TRAINING = PrefixTraining(
    steps=200,
    micro_batch=4,
    accumulation=4,
    learning_rate=0.1,
    checkpoint_steps=(0, 25, 50, 100, 150, 200),
)


def as_reported(training: PrefixTraining = TRAINING, *, seed: int = 42) -> Recipe:
    """The follow-up's recipe, flaws included (reference page, section 1.3)."""
    return Recipe(
        mixture=AS_REPORTED,
        encoding=Encoding(
            layout=BEFORE_BOS, label_tokens=AS_TEXT, end_truncated=True, max_length=2048
        ),
        training=training,
        empty_data=EMPTY_TURN,
        max_label_tokens=512,
        seed=seed,
    )


def corrected(training: PrefixTraining = TRAINING, *, seed: int = 42) -> Recipe:
    """The same question asked properly: nothing of the evaluation in training (P2, P4, P5)."""
    return Recipe(
        mixture=STRUQ,
        encoding=Encoding(
            layout=BEFORE_BOS, label_tokens=AS_GENERATED, end_truncated=False, max_length=2048
        ),
        training=training,
        empty_data=NO_TURN,
        max_label_tokens=512,
        seed=seed,
    )


def with_steps(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with another number of steps; its checkpoints are cut there, the last is added."""
    kept = {step for step in recipe.training.checkpoint_steps if step < steps} | {steps}
    training = replace(recipe.training, steps=steps, checkpoint_steps=tuple(sorted(kept)))
    return replace(recipe, training=training)
