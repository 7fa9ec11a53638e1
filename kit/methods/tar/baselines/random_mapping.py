"""Random Mapping: TAR's first stage, and by itself a baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.methods.tar.baselines.common import FORGET, STAY
from kit.methods.tar.baselines.recipe import Recipe, Term
from kit.methods.tar.forward import forward
from kit.methods.tar.losses import INCLUDED
from kit.methods.tar.representations import random_mapping_loss
from kit.methods.tar.settings import HIDDEN_STATES

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.methods.tar.batches import Counted

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
    vectors: Tensor, *, layers: str = HIDDEN_STATES, padding: str = INCLUDED
) -> tuple[Term, ...]:
    """L_LM(retain) + mean over layers and tokens of 1 - |cos(h, vector of the token)| on forget.

    Args:
        vectors: [V, d] from ``representations.hashed_vectors``.
        layers: Which states are mapped.
        padding: Whether padding counts.
    """

    def mapped(model: PreTrainedModel, forget: Counted) -> Tensor:
        batch = forget.batch
        return random_mapping_loss(
            forward(model, batch, layers=layers).layers,
            batch.ids,
            vectors,
            batch.attention_mask,
            padding=padding,
            total=forget.total(padding),
        )

    return STAY, Term("forget-random-mapping", (FORGET,), mapped)
