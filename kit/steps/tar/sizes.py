"""How TAR's trainings do with the GPUs that there are, and how a rehearsal shortens them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from kit.engine.batch import share_of
from kit.engine.registry import Cards, Sized
from kit.steps.common import same_named
from kit.steps.sharding import FEWEST, solved
from kit.steps.tar.params import Data, Safeguard, Tabulate, Train

if TYPE_CHECKING:
    from kit.methods.tar.settings import TarSettings

Models = Mapping[str, Mapping[str, Any]]
_STANDINS = 512
"""Of a set whose published count nobody declares."""


def settings_of(params: Train) -> TarSettings:
    """The preset, with what the parameters change of it."""
    from kit.methods.tar.presets import preset
    from kit.methods.tar.settings import TarSettings
    from kit.methods.tar.stages import simulated

    changes = same_named(params, TarSettings) | {"adversaries": None}
    return preset(
        params.preset, params.domain, **simulated(changes, params.adversaries, params.shares)
    )


def train(params: Train, models: Models, cards: Cards) -> Sized | None:
    """The outer loop."""
    from kit.train.plan import GlobalBatches

    settings = settings_of(params)
    work = GlobalBatches(
        max(settings.forget_batch, settings.inner_retain_batch),
        settings.held_out_batch,
        settings.retain_batch,
        settings.width or 256,
        settings.inner_steps,
        settings.inner_steps // settings.every,
    )
    return solved(params, models, cards, work, settings.outer_steps)


def safeguard(params: Safeguard, models: Models, cards: Cards) -> Sized | None:
    """A safeguard: a batch of forget and as many of retain texts a step, each in its own pass."""
    from kit.train.plan import Attack

    work = Attack(params.batch, params.length or 256, measured=False)
    return solved(params, models, cards, work, 2 * params.steps)


def shorter_train(params: Train, fraction: float) -> Train:
    """A share of the outer steps, each of them whole."""
    steps = share_of(settings_of(params).outer_steps, fraction)
    return msgspec.structs.replace(params, outer_steps=steps)


def shorter_safeguard(params: Safeguard, fraction: float) -> Safeguard:
    """A share of the steps."""
    steps = share_of(params.steps, fraction)
    return msgspec.structs.replace(params, steps=steps, warmup=min(params.warmup, steps - 1))


def shorter_data(params: Data, fraction: float) -> Data:
    """A share of the texts and questions; of each set as many as a batch has."""
    counts = {"retain": _STANDINS} | {
        name: int(count) for name, count in (entry.split("=") for entry in params.published)
    }
    kept = [f"{name}={share_of(count, fraction, FEWEST)}" for name, count in counts.items()]
    return msgspec.structs.replace(params, published=kept)


def shorter_table(params: Tabulate, fraction: float) -> Tabulate:
    """The end of attacks of a share of the steps: a shortened attack has no other point."""
    ends = [share_of(max(params.steps), fraction, fewest=2)] if params.steps else []
    return msgspec.structs.replace(params, steps=ends)
