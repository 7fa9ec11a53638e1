"""Recipes of the notes, written down for tests; the kit's own come from manifests."""

from __future__ import annotations

from dataclasses import replace

from kit.methods.defensive_tokens.examples import AS_GENERATED, AS_TEXT, Encoding
from kit.methods.defensive_tokens.layouts import BEFORE_BOS
from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.prefix_training.state import PrefixState, start
from kit.methods.defensive_tokens.recipe import Recipe
from kit.methods.defensive_tokens.self_label import EMPTY_TURN, NO_TURN
from kit.methods.defensive_tokens.struq import AS_REPORTED, PROPER
from kit.methods.defensive_tokens.transfer import normal_init


def short(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with this many steps and a checkpoint behind the last."""
    return replace(recipe, training=PrefixTraining(steps, checkpoint_steps=(steps,)))


REPORTED = Recipe(
    mixture=AS_REPORTED,
    encoding=Encoding(layout=BEFORE_BOS, label_tokens=AS_TEXT, end_truncated=True, max_length=2048),
    training=PrefixTraining(6),
    empty_data=EMPTY_TURN,
    max_label_tokens=512,
    seed=42,
)
CORRECTED = Recipe(
    mixture=PROPER,
    encoding=Encoding(
        layout=BEFORE_BOS, label_tokens=AS_GENERATED, end_truncated=False, max_length=2048
    ),
    training=PrefixTraining(6),
    empty_data=NO_TURN,
    max_label_tokens=512,
    seed=42,
)


def initial_state(width: int) -> PrefixState:
    """Five vectors drawn from N(0, I) (DTP, Algorithm 1)."""
    return start(normal_init(5, width, 0))
