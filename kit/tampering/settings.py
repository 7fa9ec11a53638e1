"""An attack from plain settings, one value each, as a manifest writes them; and back."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from kit.tampering.attack import Attack, phases
from kit.tampering.search import Space, draw_attacks
from kit.train.engine import Precision
from kit.train.lora import Lora
from kit.train.optimizers import SPECS, OptimizerSpec, ScheduleFreeAdamW, optimizer_spec
from kit.train.schedules import Schedule

OPTIMIZER = ("learning_rate", "weight_decay", "decay", "momentum", "nesterov", "routing")
"""Settings of optimizers that have the same name here; what an optimizer lacks is left out."""


def attack_of(settings: Any) -> Attack:
    """The attack that the settings describe.

    Args:
        settings: Parameters of the step kind ``tampering/attack``.

    Raises:
        ValueError: Settings that cannot be run, or that the optimizer does not have.
    """
    free = settings.optimizer == ScheduleFreeAdamW.name
    if free and settings.schedule != "constant":
        raise ValueError(f"{settings.optimizer} takes no schedule, not {settings.schedule!r}")
    values = {name: getattr(settings, name) for name in OPTIMIZER}
    given = {name: value for name, value in values.items() if value is not None}
    if free:
        given["warmup_steps"] = settings.warmup
    schedule = Schedule(
        settings.schedule, settings.warmup, settings.floor, settings.period, settings.growth
    )
    return Attack(
        name=settings.optimizer,
        optimizer=optimizer_spec(settings.optimizer, given),
        steps=settings.steps,
        batch=settings.batch,
        phases=phases(*settings.data, first=settings.first_share),
        schedule=Schedule() if free else schedule,
        length=settings.length,
        lora=_adapter(settings, settings.lora_rank),
        clip=settings.clip,
        seed=settings.seed,
        shuffle=settings.shuffle,
        precision=Precision(settings.compute, settings.masters),
        weights=settings.weights,
    )


def settings_of(attack: Attack) -> dict[str, Any]:
    """The inverse: an attack as plain values, for a manifest or a record.

    Raises:
        ValueError: An attack with a setting that plain values have no name for.
    """
    spec, plan = attack.optimizer, attack.schedule
    warmup = spec.warmup_steps if isinstance(spec, ScheduleFreeAdamW) else plan.warmup
    made: dict[str, Any] = {
        "seed": attack.seed,
        "optimizer": spec.name,
        **{name: getattr(spec, name) for name in OPTIMIZER if hasattr(spec, name)},
        "steps": attack.steps,
        "batch": attack.batch,
        "data": [phase.data for phase in attack.phases],
        "first_share": attack.phases[0].share,
        "schedule": plan.name,
        "warmup": warmup,
        "floor": plan.floor,
        "period": plan.period,
        "growth": plan.growth,
        "length": attack.length,
        "clip": attack.clip,
        "shuffle": attack.shuffle,
        "compute": attack.precision.compute,
        "masters": attack.precision.masters,
        "weights": attack.weights,
    }
    if len(attack.phases) == 1:
        del made["first_share"]
    if attack.lora is not None:
        made |= {f"lora_{f.name}": _plain(getattr(attack.lora, f.name)) for f in fields(Lora)}
    _check_defaults(spec, {*OPTIMIZER, "warmup_steps"})
    return made


def drawn_trial(settings: Any) -> Attack:
    """The attack of that number in a search.

    Args:
        settings: Parameters of the step kind ``tampering/trial``.

    Raises:
        ValueError: A range of rates that is none, settings that cannot be run.
    """
    base = attack_of(settings)
    specs = [_optimizer(settings, name) for name in settings.optimizers]
    plans = [Schedule(name, settings.warmup, settings.floor) for name in settings.schedules]
    space = Space(
        base,
        (settings.lowest_rate, settings.highest_rate),
        optimizers=tuple(specs),
        batches=tuple(settings.batches),
        schedules=tuple(plans),
        phases=tuple(
            phases(*names.split(">"), first=settings.first_share) for names in settings.phases
        ),
        adapters=tuple(_adapter(settings, rank) for rank in settings.ranks),
    )
    drawn: list[Attack] = draw_attacks(space, settings.trial + 1, seed=settings.seed)
    return drawn[-1]


def _optimizer(settings: Any, name: str) -> OptimizerSpec:
    """The optimizer of that name with those of the settings that it has."""
    known = {field.name for field in fields(SPECS[name])} if name in SPECS else set()
    values = {key: getattr(settings, key) for key in OPTIMIZER if key in known}
    given = {key: value for key, value in values.items() if value is not None}
    if "warmup_steps" in known:
        given["warmup_steps"] = settings.warmup
    return optimizer_spec(name, given)


def _adapter(settings: Any, rank: int) -> Lora | None:
    if not rank:
        return None
    return Lora(
        rank,
        settings.lora_alpha,
        tuple(settings.lora_targets),
        tuple(settings.lora_layers),
        settings.lora_dropout,
    )


def _check_defaults(spec: OptimizerSpec, named: set[str]) -> None:
    default = type(spec)(learning_rate=spec.learning_rate, weight_decay=spec.weight_decay)
    for field in fields(spec):
        if field.name not in named and getattr(spec, field.name) != getattr(default, field.name):
            raise ValueError(f"no plain setting is called {field.name}, which {spec.name} changes")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
