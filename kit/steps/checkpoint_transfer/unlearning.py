"""Steps ``unlearn`` and ``evaluate``, and the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.durable import write_json
from kit.engine.registry import StepContext
from kit.steps.checkpoint_transfer.inputs import (
    encoder,
    pad_of,
    pinned_files,
    questions_of,
    tokenizer_of,
)
from kit.steps.checkpoint_transfer.params import Evaluate, Questions, Tabulate, Unlearn
from kit.steps.common import load_model, transformers_backend

if TYPE_CHECKING:
    from kit.methods.checkpoint_transfer.gather import Finished
    from kit.methods.checkpoint_transfer.recipe import Recipe


def recipe_of(params: Unlearn) -> Recipe:
    """The recipe that the parameters spell out, on top of their preset."""
    from kit.methods.checkpoint_transfer.presets import make_recipe

    shift = {} if params.use_at is None else {"use_at": params.use_at}
    return make_recipe(
        params.preset,
        retain_coef=params.retain_coef,
        remove_coef=params.remove_coef,
        layers=tuple(params.layers),
        fit_at=params.fit_at,
        examples=params.examples,
        micro_batch=params.micro_batch,
        epochs=params.epochs,
        global_batch=params.global_batch,
        full_rank=params.full_rank,
        train_embeddings=params.train_embeddings,
        lora_rank=params.lora_rank,
        lora_alpha=params.lora_alpha,
        lora_dropout=params.lora_dropout,
        optimizer=params.optimizer,
        learning_rate=params.learning_rate,
        weight_decay=params.weight_decay,
        clip=params.clip,
        **shift,
    )


def run_unlearn(ctx: StepContext, params: Unlearn) -> None:
    """Pull the final model's states on forget text to the mapped ones of the early checkpoint."""
    from kit.lm.load import save_model
    from kit.methods.checkpoint_transfer.affine_files import load_maps
    from kit.methods.checkpoint_transfer.texts import read_texts
    from kit.methods.checkpoint_transfer.whole_run import run_recipe, summary
    from kit.train.engine import Precision

    recipe = recipe_of(params)
    tokenizer = tokenizer_of(ctx, ctx.model("student"))
    pairs = read_texts(ctx.step("texts").path).pairs(
        recipe.examples, pad_id=pad_of(tokenizer), device=ctx.device
    )
    done = run_recipe(
        load_model(ctx, ctx.model("student"), params.dtype),
        load_model(ctx, ctx.model("teacher"), params.dtype),
        load_maps(ctx.step("maps").path / "maps") if ctx.has("maps") else None,
        recipe,
        pairs,
        seed=params.seed,
        precision=Precision(compute=params.compute),
    )
    save_model(done.model, tokenizer, ctx.out / "model")
    training = summary(done.run, recipe)
    write_json(ctx.out / "training.json", training)
    ctx.canary("teacher-unchanged", done.teacher_unchanged, "hash of the teacher's weights")
    stray = sorted(done.moved - done.allowed)
    ctx.canary(
        "only-trained-weights-moved",
        bool(done.moved) and not stray,
        f"{len(done.moved)} tensors moved of {len(done.allowed)} that may"
        + (f"; {stray[0]} may not" if stray else ""),
    )
    if done.run.diverged_at is not None:
        ctx.note(f"diverged at optimizer step {done.run.diverged_at}; the recipe goes on")


def run_questions(ctx: StepContext, params: Questions) -> None:
    """Bring the published question sets into the form that evaluations read.

    ``wmdp-bio`` and ``wmdp-robust`` are the same questions: the log's two columns are two
    evaluations of one metric (docs/methods/checkpoint-transfer.md).
    """
    from kit.methods.checkpoint_transfer.questions import read_lettered, stem, write_questions

    robust = read_lettered(pinned_files(ctx.pin("robust").path), "robust", about="biology")
    mmlu = read_lettered(pinned_files(ctx.pin("mmlu").path), "mmlu")
    sets = {"wmdp-bio": robust, "wmdp-robust": robust, "mmlu": mmlu, "mmlu-stem": stem(mmlu)}
    wanted = {"wmdp-robust": params.robust, "mmlu": params.mmlu, "mmlu-stem": params.mmlu_stem}
    for name, questions in sets.items():
        write_questions(ctx.out, name, questions)
    counts = {name: len(sets[name]) for name in wanted}
    ctx.canary("every-question-is-there", counts == wanted, f"{counts}, wanted {wanted}")


def run_evaluate(ctx: StepContext, params: Evaluate) -> None:
    """Score a model on sets of multiple-choice questions."""
    from kit.methods.checkpoint_transfer.answers import answer

    model = ctx.model("model")
    tokenizer = tokenizer_of(ctx, model)
    backend = transformers_backend(
        ctx,
        model,
        dtype=params.dtype,
        pad_id=pad_of(tokenizer),
        batch_tokens=params.batch_tokens,
    )
    encode = encoder(tokenizer)
    found = {name: answer(backend, questions_of(ctx, name), encode) for name in params.sets}
    write_json(ctx.out / "answers.json", found)


def run_tabulate(ctx: StepContext, params: Tabulate) -> None:
    """Gather all measurements into ``results.json``."""
    from kit.methods.checkpoint_transfer.gather import tabulate

    tabulate(
        unlearned=_finished(ctx, "unlearned"),
        trainings=_finished(ctx, "trainings"),
        originals=_finished(ctx, "originals"),
        teachers=_finished(ctx, "teachers"),
        oracles=_finished(ctx, "oracles"),
        roles=ctx.roles,
        losses=params.losses,
        checkpoint=params.checkpoint,
    ).write(ctx.out)


def _finished(ctx: StepContext, name: str) -> list[Finished]:
    from kit.methods.checkpoint_transfer.gather import Finished

    if not ctx.has(name):
        return []
    return [Finished(step.instance, step.path, step.axes) for step in ctx.steps(name)]
