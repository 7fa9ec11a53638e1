"""How TAR's trainings do with the GPUs that there are, and how a rehearsal shortens them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from kit.engine.batch import share_of
from kit.engine.registry import Cards, Sized
from kit.steps.common import same_named
from kit.steps.sharding import FEWEST, solved
from kit.steps.tar.params import Data, OuterLoop, Safeguard, Tabulate, Train
from kit.steps.tar.refusal_params import AnswerTuning, Refuse, Requests

if TYPE_CHECKING:
    from kit.methods.tar.settings import TarSettings

Sets = TypeVar("Sets", Data, Requests)
Models = Mapping[str, Mapping[str, Any]]
_STANDINS = 512
"""Of a set whose published count nobody declares."""
_ANSWER = 1024
"""Tokens of the longest prompt with its answer in the published pairs (docs/methods/tar.md)."""


def settings_of(params: Train) -> TarSettings:
    """The preset, with what the parameters change of it."""
    from kit.methods.tar.presets import preset
    from kit.methods.tar.settings import TarSettings
    from kit.methods.tar.stages import simulated

    changes = same_named(params, TarSettings) | {"adversaries": None}
    return preset(
        params.preset, params.domain, **simulated(changes, params.adversaries, params.shares)
    )


def refusal_settings(params: Refuse) -> TarSettings:
    """Likewise, for refusals."""
    from kit.methods.tar.presets import preset
    from kit.methods.tar.settings import TarSettings

    return preset(params.preset, "refusal", **same_named(params, TarSettings))


def train(params: Train, models: Models, cards: Cards) -> Sized | None:
    """The outer loop."""
    settings = settings_of(params)
    return _outer_loop(params, settings, models, cards, settings.width or 256)


def refuse(params: Refuse, models: Models, cards: Cards) -> Sized | None:
    """The outer loop on pairs, whose two answers are a row of the held-out batch together."""
    return _outer_loop(params, refusal_settings(params), models, cards, _ANSWER, held_out_texts=2)


def _outer_loop(
    params: OuterLoop,
    settings: TarSettings,
    models: Models,
    cards: Cards,
    width: int,
    held_out_texts: int = 1,
) -> Sized | None:
    from kit.train.plan import GlobalBatches

    work = GlobalBatches(
        max(settings.forget_batch, settings.inner_retain_batch),
        settings.held_out_batch,
        settings.retain_batch,
        width,
        settings.inner_steps,
        settings.inner_steps // settings.every,
        held_out_texts,
    )
    return solved(params, models, cards, work, settings.outer_steps)


def tune(params: AnswerTuning, models: Models, cards: Cards) -> Sized | None:
    """Fine-tuning on prompts with their answers."""
    from kit.train.plan import Attack

    work = Attack(params.batch, params.length or _ANSWER, measured=bool(params.asked))
    made = solved(params, models, cards, work, params.steps)
    # Where it is asked meanwhile, most minutes are answers, which the declared ones count.
    return replace(made, minutes=None) if made and params.asked else made


def safeguard(params: Safeguard, models: Models, cards: Cards) -> Sized | None:
    """A safeguard: a batch of forget and as many of retain texts a step, each in its own pass."""
    from kit.train.plan import Attack

    work = Attack(params.batch, params.length or 256, measured=False)
    return solved(params, models, cards, work, 2 * params.steps)


def shorter_train(params: Train, fraction: float) -> Train:
    """A share of the outer steps, each of them whole."""
    steps = share_of(settings_of(params).outer_steps, fraction)
    return msgspec.structs.replace(params, outer_steps=steps)


def shorter_refuse(params: Refuse, fraction: float) -> Refuse:
    """A share of the outer steps, each of them whole."""
    steps = share_of(refusal_settings(params).outer_steps, fraction)
    return msgspec.structs.replace(params, outer_steps=steps)


def shorter_safeguard(params: Safeguard, fraction: float) -> Safeguard:
    """A share of the steps."""
    steps = share_of(params.steps, fraction)
    return msgspec.structs.replace(params, steps=steps, warmup=min(params.warmup, steps - 1))


def shorter_data(params: Data, fraction: float) -> Data:
    """A share of the texts and questions; of each set as many as a batch has."""
    return _fewer(params, {"retain": _STANDINS}, fraction)


def shorter_requests(params: Requests, fraction: float) -> Requests:
    """A share of the pairs; of each set as many as a batch has."""
    from kit.methods.tar.refusal_published import SETS

    return _fewer(params, dict.fromkeys(SETS, _STANDINS), fraction)


def _fewer(params: Sets, counts: dict[str, int], fraction: float) -> Sets:
    named = (entry.split("=") for entry in params.published)
    counts = counts | {name: int(count) for name, count in named}
    kept = [f"{name}={share_of(count, fraction, FEWEST)}" for name, count in counts.items()]
    return msgspec.structs.replace(params, published=kept)


def shorter_table(params: Tabulate, fraction: float) -> Tabulate:
    """The end of attacks of a share of the steps: a shortened attack has no other point."""
    ends = [share_of(max(params.steps), fraction, fewest=2)] if params.steps else []
    return msgspec.structs.replace(params, steps=ends)
