"""Parameters of the step kinds of the world of fictional facts."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Count = Annotated[int, Meta(ge=1)]


class FactsData(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``mini/facts-data``."""

    seed: Annotated[int, Meta(ge=0)]
    """Of names, halves, values, forms, options and texts."""


class Pretrain(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``mini/pretrain``; what is left out is the recipe of the build record."""

    seed: Annotated[int, Meta(ge=0)]
    """Of the first weights and of the order of the sentences."""
    steps: Count = 500
    introduced: Annotated[int, Meta(ge=0)] = 200
    """The step from which facts about compounds are among the data."""
    forget: bool = True
    """Without them the model is the control that never saw what is to be forgotten."""
    requests: bool = False
    """With them the model learns to answer requests, and to refuse those about compounds."""
    checkpoints: list[Annotated[int, Meta(ge=0)]] = field(default_factory=lambda: [200])
    """Steps after which the model is kept; ``mini/checkpoint`` picks one."""
    architecture: Literal["llama", "gpt-neox"] = "llama"
    width: Annotated[int, Meta(ge=1, le=4096)] = 128
    layers: Annotated[int, Meta(ge=1, le=64)] = 4
    heads: Count = 4
    feed_forward: Annotated[int, Meta(ge=1, le=16384)] = 256
    batch: Count = 64
    learning_rate: Annotated[float, Meta(gt=0)] = 2e-3
    warmup: Annotated[int, Meta(ge=0)] = 50


class Checkpoint(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``mini/checkpoint``."""

    step: Annotated[int, Meta(ge=0)]
    """One of the checkpoints that the pretraining kept."""
