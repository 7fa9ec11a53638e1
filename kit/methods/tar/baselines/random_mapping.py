"""Random Mapping: TAR's first stage, and by itself a baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.methods.tar.baselines.recipe import Recipe, Terms
from kit.methods.tar.forward import forward
from kit.methods.tar.losses import INCLUDED
from kit.methods.tar.objectives import language_model_loss
from kit.methods.tar.representations import random_mapping_loss
from kit.methods.tar.settings import HIDDEN_STATES

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.train.batching import Batch

RECIPE = Recipe(
    steps=1000,
    learning_rate=1e-5,
    warmup=100,
    batch=64,
    optimizer="schedule-free-adamw",
    source=(
        "unspecified: no script trains the released random-mapped models; these are the defaults "
        "of [CODE] modules/baselines.py, 8 examples on 8 GPUs"
    ),
)


def random_mapping(
    model: PreTrainedModel,
    forget: Batch,
    retain: Batch,
    vectors: Tensor,
    *,
    layers: str = HIDDEN_STATES,
    padding: str = INCLUDED,
) -> Terms:
    """L_LM(retain) + mean over layers and tokens of 1 - |cos(h, vector of the token)| on forget.

    Args:
        model: In training.
        forget: Forget examples.
        retain: Retain examples.
        vectors: [V, d] from ``representations.hashed_vectors``.
        layers: Which states are mapped.
        padding: Whether padding counts.
    """
    yield "retain", language_model_loss(model, retain)
    states = forward(model, forget, layers=layers).layers
    mask = forget.attention_mask
    yield (
        "forget-random-mapping",
        random_mapping_loss(states, forget.ids, vectors, mask, padding=padding),
    )
