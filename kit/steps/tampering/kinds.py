"""The attack kinds: a model attacked and watched, and the same with the attacked model kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from kit.durable import write_json
from kit.engine.batch import share_of
from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY, Cards, ModelOutput, Sized
from kit.steps.common import finished, load_model, model_imports, same_named, tokenizer_of
from kit.steps.sharding import make_engine, say_seconds, solved
from kit.steps.tampering.params import Attack, Trial, Worst

TRAJECTORY = "trajectory.json"
SETTINGS = "attack.json"
SHARED = ("device", "dtype", "torch", "transformers", "world")
"""What may move a number of a training that several GPUs share."""


def sized(params: Attack, models: Mapping[str, Mapping[str, Any]], cards: Cards) -> Sized | None:
    """An attack on all weights; a batch of adapters needs no more than that."""
    from kit.train.plan import Attack as Work

    made = solved(params, models, cards, Work(params.batch, params.length or 256), params.steps)
    # Most of an attack's minutes are questions, which the declared ones count.
    return made and replace(made, minutes=None)


def shortened(params: Attack, fraction: float) -> Attack:
    """An attack of a share of the steps, measured at its ends; two, so that it can switch."""
    steps = share_of(params.steps, fraction, fewest=2)
    return msgspec.structs.replace(
        params,
        steps=steps,
        measure_every=steps,
        warmup=min(params.warmup, steps - 1),
        period=share_of(params.period, fraction) if params.period else 0,
    )


@REGISTRY.kind(
    "tampering/attack",
    version=1,
    imports=model_imports,
    launch="torchrun",
    environment=SHARED,
    inputs={"model": "model", "data": "step"},
    outputs=(TRAJECTORY,),
    canaries=("attack-ran",),
    sized=sized,
    shortened=shortened,
)
def run_attack(ctx: StepContext, params: Attack) -> None:
    """Attack a model and write its trajectory."""
    _attack(ctx, params)


@REGISTRY.kind(
    "tampering/fine-tune",
    version=1,
    imports=model_imports,
    launch="torchrun",
    environment=SHARED,
    inputs={"model": "model", "data": "step"},
    outputs=(TRAJECTORY, "model"),
    canaries=("attack-ran",),
    model=ModelOutput("model", inherits="model"),
)
def run_fine_tune(ctx: StepContext, params: Attack) -> None:
    """Attack a model, write its trajectory and the attacked model."""

    attacked = _attack(ctx, params)
    attacked.save(ctx.out / "model", tokenizer_of(ctx, ctx.model("model")))


@REGISTRY.kind(
    "tampering/trial",
    version=1,
    launch="torchrun",
    environment=SHARED,
    inputs={"model": "model", "data": "step"},
    outputs=(TRAJECTORY, SETTINGS),
    canaries=("attack-ran",),
)
def run_trial(ctx: StepContext, params: Trial) -> None:
    """Draw an attack of a search, run it, write its settings and its trajectory."""
    from kit.tampering.settings import drawn_trial, settings_of

    attack = drawn_trial(params)
    if not _attack(ctx, params, attack).engine.rank:
        write_json(ctx.out / SETTINGS, settings_of(attack))


@REGISTRY.kind(
    "tampering/worst-case",
    version=1,
    inputs={"attacks": "steps"},
    outputs=("results.json", "labels.jsonl"),
    environment=(),
    canaries=("attacks-differ",),
)
def run_worst_case(ctx: StepContext, params: Worst) -> None:
    """The worst of each model's attacks, as ``results.json``."""
    from kit.tampering.watched import FinishedAttack
    from kit.tampering.worst_table import Search, tabulate_worst

    trials = finished(ctx, "attacks", FinishedAttack, TRAJECTORY)
    tabulate_worst(trials, ctx.roles, Search(**same_named(params, Search))).write(ctx.out)
    different = {
        (attack.path / SETTINGS).read_text(encoding="utf-8") for attack in ctx.steps("attacks")
    }
    axes = {str(attack.axes[params.axis]) for attack in ctx.steps("attacks")}
    ctx.canary(
        "attacks-differ",
        len(different) >= len(axes),
        f"{len(different)} different attacks in searches of {len(axes)}",
    )


def shared_training(ctx: StepContext, params: Any) -> dict[str, Any]:
    """How a training that several GPUs may share is carried out: rows at once, engine, and where
    its state is saved. Asked for before a model is loaded, it gives the process its own GPU."""
    from kit.train.checkpoints import CheckpointFolder
    from kit.train.engines import use_own_gpu

    use_own_gpu(ctx.device)
    return {
        "rows": params.rows,
        "folder": CheckpointFolder(ctx.scratch / "checkpoints"),
        "make_engine": make_engine(ctx, params),
    }


def _attack(ctx: StepContext, params: Attack, drawn: Any = None):  # type: ignore[no-untyped-def]
    from kit.evals.sets import pad_id
    from kit.tampering.run import run_attack
    from kit.tampering.settings import attack_of
    from kit.tampering.watched import attack_texts, record, watch
    from kit.train.clock import Clock

    how = shared_training(ctx, params)
    source = ctx.model("model")
    tokenizer = tokenizer_of(ctx, source)
    data = ctx.step("data").path
    points, watched = watch(data, tokenizer, params)
    attack, clock = drawn or attack_of(params), Clock(ctx.device)

    def on_step(step: int, loss: float) -> None:
        ctx.progress(step, params.steps, "steps")
        say_seconds(ctx, clock, step)

    attacked = run_attack(
        load_model(ctx, source, params.dtype, trainable=True),
        attack_texts(data, tokenizer, attack.data),
        attack,
        pad_id=pad_id(tokenizer),
        evaluate=watched,
        at_steps=points,
        on_step=on_step,
        clock=clock,
        **how,
    )
    say_seconds(ctx, clock, params.steps)
    if attacked.engine.rank:
        return attacked
    write_json(ctx.out / TRAJECTORY, record(attacked.trajectory, watched))
    moved = attacked.trajectory.losses
    ctx.canary("attack-ran", len(moved) > 0, f"{len(moved)} steps")
    return attacked
