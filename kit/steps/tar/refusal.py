"""Refusals in the TAR family: requests, the outer loop on pairs, baselines, attacks, tables."""

from __future__ import annotations

import shutil
from typing import Any

from kit.durable import write_json
from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY, ModelOutput
from kit.steps.common import (
    finished,
    load_model,
    pinned_files,
    same_named,
    tokenizer_and_format,
    tokenizer_of,
)
from kit.steps.tampering.kinds import SHARED, TRAJECTORY, shared_training, shortened
from kit.steps.tar import sizes
from kit.steps.tar.kinds import COUNTS, TRAINING, leave
from kit.steps.tar.refusal_params import (
    AnswerTuning,
    RefusalSafeguard,
    RefusalTable,
    Refuse,
    Requests,
    WinRateTable,
)

PINS = ("hh", "magpie", "toxic-dpo")
"""Published pairs and conversations by the name of the input."""


@REGISTRY.kind(
    "tar/requests",
    version=1,
    inputs={"model": "model", "world": "step", **dict.fromkeys(PINS, "pin")},
    optional=frozenset({"world", *PINS}),
    outputs=("pairs", "requests", "questions", COUNTS),
    environment=("transformers",),
    canaries=("counts-as-published",),
    shortened=sizes.shorter_requests,
)
def run_requests(ctx: StepContext, params: Requests) -> None:
    """Write pairs and requests of a world, or the published pairs, in the model's chat format."""
    from kit.methods.tar.refusal_data import world_answer, world_sets, write_pairs, write_requests

    if not ctx.has("world"):
        _published(ctx, params)
        return
    tokenizer, chat = tokenizer_and_format(ctx, ctx.model("model"))
    world = ctx.step("world").path
    pairs, asked = world_sets(
        world, attack_rows=params.attack_rows, seed=params.seed, label=params.label
    )
    shutil.copytree(world / "questions", ctx.out / "questions")
    write_pairs(ctx.out, pairs, tokenizer, chat)
    write_requests(ctx.out, asked, tokenizer, chat, world_answer)
    write_json(ctx.out / COUNTS, {name: len(rows) for name, rows in pairs.items()})
    ctx.canary("counts-as-published", not params.published, "a world of its own")
    trained = {row.prompt for name in ("harmful", "benign", "attack") for row in pairs[name]}
    judged = {row.prompt for row in (*pairs["judged"], *asked["harmful"], *asked["benign"])}
    ctx.canary(
        "judged-requests-are-new",
        not trained & judged,
        f"{len(judged)} requests to judge by, {len(trained & judged)} of them in a training",
    )


def _published(ctx: StepContext, params: Requests) -> None:
    from kit.methods.tar.published import counts
    from kit.methods.tar.refusal_data import write_pairs
    from kit.methods.tar.refusal_published import INPUTS, published_pairs, standin_pairs

    tokenizer, chat = tokenizer_and_format(ctx, ctx.model("model"))
    if ctx.rehearsal:
        wanted = {name: int(n) for name, n in (count.split("=") for count in params.published)}
        pairs = standin_pairs(wanted, params.prompt_width or 16)
    else:
        files = {name: pinned_files(ctx.pin(name).path) for name in INPUTS if ctx.has(name)}
        pairs = published_pairs(files, params.refusal)
    write_pairs(
        ctx.out, pairs, tokenizer, chat, prompt_width=params.prompt_width, width=params.width
    )
    for name in ("requests", "questions"):
        (ctx.out / name).mkdir()
    there = {name: len(rows) for name, rows in pairs.items()}
    write_json(ctx.out / COUNTS, there)
    comparisons = counts(there, params.published)
    detail = "; ".join(sentence for sentence, _ in comparisons) or "none is published"
    ctx.canary("counts-as-published", all(holds for _, holds in comparisons), detail)


@REGISTRY.kind(
    "tar/refuse",
    version=1,
    launch="torchrun",
    environment=SHARED,
    inputs={"model": "model", "reference": "model", "data": "step"},
    outputs=("model", TRAINING),
    canaries=("weights-moved",),
    model=ModelOutput("model", inherits="model"),
    sized=sizes.refuse,
    shortened=sizes.shorter_refuse,
)
def run_refuse(ctx: StepContext, params: Refuse) -> None:
    """Run TAR's outer loop with DPO, for refusals."""
    from kit.evals.sets import pad_id
    from kit.methods.tar.outer_loop import saved_weights
    from kit.methods.tar.pairs import read_pairs, with_reference
    from kit.methods.tar.refusal import RefusalData, train_refusal
    from kit.methods.tar.refusal_data import answers
    from kit.train.engine import Precision
    from kit.train.residence import frozen

    how = shared_training(ctx, params)
    source = ctx.model("model")
    tokenizer = tokenizer_of(ctx, source)
    data, pad = ctx.step("data").path, pad_id(tokenizer)
    reference = load_model(ctx, ctx.model("reference"), params.dtype)

    def pairs(name: str) -> list[Any]:
        read = read_pairs(data, name) if name else []
        return with_reference(read, reference, rows=params.rows, pad_id=pad)

    settings = sizes.refusal_settings(params)
    judged = pairs(params.judged) if params.measure_every else []
    known = RefusalData(
        pairs(params.pairs),
        answers(data, params.retain),
        held_out=pairs(params.held_out),
        judged=judged,
        share=params.adversary_share,
        by=params.divide_by,
        redraw=params.redraw,
    )
    trained, run = train_refusal(
        load_model(ctx, source, params.dtype, trainable=True),
        frozen(reference, params.reference, ctx.device),  # asked about all pairs above
        known,
        settings,
        seed=params.seed,
        pad_id=pad,
        measure_every=params.measure_every,
        on_step=lambda step: ctx.progress(step.number + 1, settings.outer_steps, "outer steps"),
        precision=Precision(params.compute),
        snapshot_device=params.snapshot,
        **how,
    )
    items = [pair.rejected.id for pair in judged]
    leave(ctx, trained, tokenizer, saved_weights(settings), {**run.curves(), "judged": items})


@REGISTRY.kind(
    "tar/refusal-safeguard",
    version=1,
    inputs={"model": "model", "data": "step"},
    outputs=("model", TRAINING),
    canaries=("weights-moved",),
    model=ModelOutput("model", inherits="model"),
)
def run_refusal_safeguard(ctx: StepContext, params: RefusalSafeguard) -> None:
    """Train RR or RepNoise."""
    from kit.evals.sets import pad_id
    from kit.lm.load import save_model
    from kit.methods.tar import refusal_safeguards
    from kit.methods.tar.pairs import read_pairs
    from kit.methods.tar.refusal_data import answers

    source = ctx.model("model")
    tokenizer = tokenizer_of(ctx, source)
    data = ctx.step("data").path
    plan = refusal_safeguards.RefusalSafeguard
    reference = load_model(ctx, source, params.dtype)
    trained = refusal_safeguards.train_refusal_safeguard(
        load_model(ctx, source, params.dtype, trainable=True),
        reference,
        read_pairs(data, params.pairs),
        answers(data, params.retain),
        plan(**same_named(params, plan)),
        pad_id=pad_id(tokenizer),
        rows=params.rows,
    )
    save_model(trained.model, tokenizer, ctx.out / "model")
    write_json(ctx.out / TRAINING, {"losses": trained.losses})
    moved = trained.largest_change
    ctx.canary("weights-moved", moved > 0, f"a weight moved by {moved:.3g}")


@REGISTRY.kind(
    "tar/answer-attack",
    version=1,
    launch="torchrun",
    environment=SHARED,
    inputs={"model": "model", "data": "step"},
    outputs=(TRAJECTORY,),
    canaries=("attack-ran",),
    sized=sizes.tune,
    shortened=shortened,
)
def run_answer_attack(ctx: StepContext, params: AnswerTuning) -> None:
    """Attack a model with answers and ask it on the way."""
    _tune(ctx, params)


@REGISTRY.kind(
    "tar/answer-tune",
    version=1,
    launch="torchrun",
    environment=SHARED,
    inputs={"model": "model", "data": "step"},
    outputs=(TRAJECTORY, "model"),
    canaries=("attack-ran",),
    model=ModelOutput("model", inherits="model"),
    sized=sizes.tune,
    shortened=shortened,
)
def run_answer_tune(ctx: StepContext, params: AnswerTuning) -> None:
    """Attack a model with answers, ask it on the way and keep it."""
    tuned = _tune(ctx, params)
    tuned.save(ctx.out / "model", tokenizer_of(ctx, ctx.model("model")))


def _tune(ctx: StepContext, params: AnswerTuning) -> Any:
    from kit.evals.requests import Interview, read_asked
    from kit.methods.tar.refusal_data import answers
    from kit.tampering.run import run_attack
    from kit.tampering.settings import attack_of
    from kit.tampering.trajectory import every

    how = shared_training(ctx, params)
    source, data = ctx.model("model"), ctx.step("data").path
    tokenizer, chat = tokenizer_and_format(ctx, source)
    attack = attack_of(params)
    interview = Interview(
        {name: read_asked(data, name, params.most) for name in params.asked},
        tokenizer,
        chat.stop_ids(tokenizer),
        chat.pad_id(tokenizer),
        params.new_tokens,
    )
    tuned = run_attack(
        load_model(ctx, source, params.dtype, trainable=True),
        {name: answers(data, [name]) for name in params.data},
        attack,
        pad_id=interview.pad_id,
        evaluate=interview,
        at_steps=every(params.steps, params.measure_every),
        on_step=lambda step, loss: ctx.progress(step, params.steps, "steps"),
        **how,
    )
    if tuned.engine.rank:
        return tuned
    done = tuned.trajectory
    write_json(
        ctx.out / TRAJECTORY,
        {
            "points": [[step, values] for step, values in done.points],
            "losses": done.losses,
            "diverged": list(done.diverged or ()),
            "requests": interview.asked(),
        },
    )
    ctx.canary("attack-ran", len(done.losses) > 0, f"{len(done.losses)} steps")
    return tuned


@REGISTRY.kind(
    "tar/refusal-table",
    version=1,
    inputs={"attacks": "steps"},
    outputs=("results.json", "labels.jsonl"),
    environment=(),
)
def run_refusal_table(ctx: StepContext, params: RefusalTable) -> None:
    """Gather what attacked models answer into ``results.json``."""
    from kit.methods.tar.refusal_table import tabulate_refusals
    from kit.tampering.watched import FinishedAttack

    done = finished(ctx, "attacks", FinishedAttack, TRAJECTORY)
    tabulate_refusals(
        done, ctx.roles, harmful=params.harmful, benign=params.benign, over=params.over
    ).write(ctx.out)


@REGISTRY.kind(
    "tar/win-rate-table",
    version=1,
    inputs={"trainings": "steps"},
    outputs=("results.json", "labels.jsonl"),
    environment=(),
    canaries=("reference-is-the-initial-model",),
)
def run_win_rate_table(ctx: StepContext, params: WinRateTable) -> None:
    """Gather win rates during trainings into ``results.json``."""
    from kit.methods.tar.win_rates import FinishedTraining, tabulate_win_rates

    done = finished(ctx, "trainings", FinishedTraining, TRAINING)
    table, largest = tabulate_win_rates(done, ctx.roles, parts=params.parts)
    table.write(ctx.out)
    ctx.canary(
        "reference-is-the-initial-model",
        largest < 1e-3,
        f"before the first step a margin over the initial model is at most {largest:.2g} nats",
    )
