"""The TAR family: safeguards, the outer loop, and their table."""

from __future__ import annotations

import shutil
from typing import Any

from kit.durable import write_json
from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY, ModelOutput, Sort
from kit.steps.common import finished, load_model, pinned_files, same_named, tokenizer_of
from kit.steps.sharding import say_seconds
from kit.steps.tampering.kinds import SHARED, TRAJECTORY, shared_training
from kit.steps.tar import sizes
from kit.steps.tar.params import Data, Safeguard, Tabulate, Train

TRAINING = "training.json"
COUNTS = "counts.json"
PINNED: dict[str, Sort] = dict.fromkeys(
    ("pile-bio", "camel-bio", "cyber", "chem", "magpie", "wmdp", "mmlu"), "pin"
)
"""Published texts and questions by the name of the input."""


def leave(
    ctx: StepContext, trained: Any, tokenizer: Any, weights: str, training: dict[str, Any]
) -> None:
    """The outputs of a training: the model, and what ``training.json`` says of it."""
    moved = trained.largest_change()
    trained.engine.save_model(ctx.out / "model", weights)
    if trained.engine.rank:
        return
    tokenizer.save_pretrained(ctx.out / "model")
    write_json(ctx.out / TRAINING, training)
    ctx.canary("weights-moved", moved > 0, f"a weight moved by {moved:.3g}")


@REGISTRY.kind(
    "tar/safeguard",
    version=1,
    launch="torchrun",
    environment=SHARED,
    inputs={"model": "model", "data": "step"},
    outputs=("model", TRAINING),
    canaries=("weights-moved",),
    model=ModelOutput("model", inherits="model"),
    sized=sizes.safeguard,
    shortened=sizes.shorter_safeguard,
)
def run_safeguard(ctx: StepContext, params: Safeguard) -> None:
    """Train random mapping, the initial safeguard, or a baseline by name."""
    from kit.methods.tar.stages import SafeguardPlan, train_by_terms
    from kit.train.engine import AVERAGED, Precision

    how = shared_training(ctx, params)
    source = ctx.model("model")
    tokenizer = tokenizer_of(ctx, source)
    model = load_model(ctx, source, params.dtype, trainable=True)
    # RMU alone asks the original model.
    reference = load_model(ctx, source, params.dtype) if params.method == "rmu" else model
    plan = SafeguardPlan(**same_named(params, SafeguardPlan))
    trained, done = train_by_terms(
        model,
        reference,
        tokenizer,
        ctx.step("data").path,
        plan,
        forget=params.forget,
        retain=params.retain,
        max_length=params.length,
        precision=Precision(params.compute),
        **how,
    )
    leave(ctx, trained, tokenizer, AVERAGED, {"losses": done.losses})


@REGISTRY.kind(
    "tar/train",
    version=1,
    launch="torchrun",
    environment=SHARED,
    inputs={"model": "model", "reference": "model", "data": "step"},
    outputs=("model", TRAINING),
    canaries=("weights-moved",),
    model=ModelOutput("model", inherits="model"),
    sized=sizes.train,
    shortened=sizes.shorter_train,
)
def run_train(ctx: StepContext, params: Train) -> None:
    """Run TAR's outer loop."""
    from kit.methods.tar.outer_loop import saved_weights
    from kit.methods.tar.stages import train_outer_loop
    from kit.train.clock import Clock
    from kit.train.engine import Precision
    from kit.train.residence import frozen

    how = shared_training(ctx, params)
    source = ctx.model("model")
    tokenizer = tokenizer_of(ctx, source)
    model = load_model(ctx, source, params.dtype, trainable=True)
    settings = sizes.settings_of(params)
    clock = Clock(ctx.device)

    def on_step(step: Any) -> None:
        ctx.progress(step.number + 1, settings.outer_steps, "outer steps")
        say_seconds(ctx, clock, step.number + 1)

    trained, run = train_outer_loop(
        model,
        frozen(load_model(ctx, ctx.model("reference"), params.dtype), params.reference, ctx.device),
        tokenizer,
        ctx.step("data").path,
        settings,
        forget=params.forget,
        retain=params.retain,
        adversary_share=params.adversary_share,
        divide_by=params.divide_by,
        redraw=params.redraw,
        held_out=params.held_out,
        seed=params.seed,
        on_step=on_step,
        precision=Precision(params.compute),
        snapshot_device=params.snapshot,
        clock=clock,
        **how,
    )
    leave(ctx, trained, tokenizer, saved_weights(settings), run.curves())


@REGISTRY.kind(
    "tar/data",
    version=1,
    inputs={"model": "model", "world": "step", **PINNED},
    optional=frozenset({"world", *PINNED}),
    outputs=("texts", "questions", COUNTS),
    environment=("transformers",),
    canaries=("counts-as-published",),
    shortened=sizes.shorter_data,
)
def run_data(ctx: StepContext, params: Data) -> None:
    """The published sets of a domain, divided and tokenised; or those of a world as they are."""
    from kit.methods.tar.published import counts
    from kit.methods.tar.published_sets import question_sets, raw_sets, standin_sets, write_sets

    if ctx.has("world"):
        for name in ("texts", "questions"):
            shutil.copytree(ctx.step("world").path / name, ctx.out / name)
        write_json(ctx.out / COUNTS, {})
        ctx.canary("counts-as-published", not params.published, "a world of its own")
        return
    wanted = {name: int(n) for name, n in (entry.split("=") for entry in params.published)}
    files = {name: pinned_files(ctx.pin(name).path) for name in PINNED if ctx.has(name)}
    if ctx.rehearsal:
        sets, asked = standin_sets(params.domain, wanted, params.width)
    else:
        sets, asked = raw_sets(files, params.domain), question_sets(files, params.domain)
    tokenizer = tokenizer_of(ctx, ctx.model("model"))
    write_sets(ctx.out, sets, asked, tokenizer, params.width)
    there = {name: len(items) for name, items in (*sets.items(), *asked.items())}
    write_json(ctx.out / COUNTS, there)
    comparisons = counts(there, params.published)
    missing = [sentence for sentence, holds in comparisons if not holds]
    detail = "; ".join(missing or [sentence for sentence, _ in comparisons]) or "none is published"
    ctx.canary("counts-as-published", not missing, detail)


@REGISTRY.kind(
    "tar/tabulate",
    version=2,
    inputs={"attacks": "steps", "further": "steps"},
    optional=frozenset({"further"}),
    outputs=("results.json", "labels.jsonl"),
    environment=(),
    shortened=sizes.shorter_table,
)
def run_tabulate(ctx: StepContext, params: Tabulate) -> None:
    """Gather the trajectories of all attacks into ``results.json``."""
    from kit.methods.tar.gather import tabulate
    from kit.methods.tar.pooled import Pooled
    from kit.tampering.watched import FinishedAttack

    attacks = [
        attack
        for name in ("attacks", "further")
        for attack in finished(ctx, name, FinishedAttack, TRAJECTORY)
    ]
    table, collapses = tabulate(
        attacks,
        ctx.roles,
        forget=params.forget,
        steps=params.steps,
        pooled=Pooled(params.over, params.statistic, tuple(params.steps)) if params.over else None,
    )
    table.write(ctx.out)
    for name, (collapsed, detail, cells) in collapses.items():
        ctx.canary(f"picks-are-spread-{name}", not collapsed, detail, cells)
