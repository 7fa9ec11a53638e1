"""Steps ``questions``, ``evaluate`` and ``attack-data``, and the table."""

from __future__ import annotations

from kit.durable import write_json
from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY, Sort
from kit.steps.checkpoint_transfer.inputs import (
    documents_of,
    encoder,
    pad_of,
    questions_of,
    tokenizer_of,
)
from kit.steps.checkpoint_transfer.params import AttackData, Evaluate, Questions, Tabulate
from kit.steps.common import finished, load_model, model_imports, pinned_files, transformers_backend

MEASURED: dict[str, Sort] = dict.fromkeys(
    ("unlearned", "trainings", "originals", "teachers", "oracles", "attacks"), "steps"
)


@REGISTRY.kind(
    "checkpoint-transfer/questions",
    version=1,
    inputs={"robust": "pin", "mmlu": "pin", "cloze": "pin", "shots": "pin"},
    optional=frozenset({"cloze", "shots"}),
    outputs=("questions",),
    canaries=("every-question-is-there",),
    environment=(),
)
def run_questions(ctx: StepContext, params: Questions) -> None:
    """Bring the published question sets into the form that evaluations read."""
    from kit.methods.checkpoint_transfer.questions import published_sets, write_questions
    from kit.methods.checkpoint_transfer.standin import standin_sets

    counts = {"wmdp-robust": params.robust, "mmlu": params.mmlu, "mmlu-stem": params.mmlu_stem}
    if params.cloze:
        counts["wmdp-cloze"] = params.cloze
    if params.shots:
        counts[f"mmlu-{params.shots}-shot"] = params.mmlu
    if ctx.rehearsal:
        sets = standin_sets(counts)
    else:
        sets = published_sets(
            pinned_files(ctx.pin("robust").path),
            pinned_files(ctx.pin("mmlu").path),
            cloze_files=pinned_files(ctx.pin("cloze").path) if params.cloze else (),
            shot_files=pinned_files(ctx.pin("shots").path) if params.shots else (),
            shots=params.shots,
        )
    for name, questions in sets.items():
        write_questions(ctx.out, name, questions)
    there = {name: len(sets[name]) for name in counts}
    ctx.canary("every-question-is-there", there == counts, f"{there}, wanted {counts}")


@REGISTRY.kind(
    "checkpoint-transfer/evaluate",
    version=1,
    imports=model_imports,
    inputs={"model": "model", "questions": "step", "published": "step"},
    optional=frozenset({"questions", "published"}),
    outputs=("answers.json",),
)
def run_evaluate(ctx: StepContext, params: Evaluate) -> None:
    """Score a model on sets of multiple-choice questions, by either scorer."""
    from kit.evals.harness import harness_score
    from kit.evals.multiple_choice import is_cloze
    from kit.methods.checkpoint_transfer.answers import (
        NOT_FINITE,
        answer,
        as_answers,
        share_of,
    )
    from kit.methods.checkpoint_transfer.whole_run import without_weights

    model = ctx.model("model")
    if without_weights(model.path):
        write_json(ctx.out / "answers.json", {name: {NOT_FINITE: True} for name in params.sets})
        return
    tokenizer = tokenizer_of(ctx, model)
    asked = {name: share_of(questions_of(ctx, name), params.fraction) for name in params.sets}
    if params.scorer == "lm-eval":
        loaded = load_model(ctx, model, params.dtype)
        answers = {
            name: as_answers(
                harness_score(loaded, tokenizer, questions, batch=params.batch),
                normalised=is_cloze(name),
            )
            for name, questions in asked.items()
        }
    else:
        backend = transformers_backend(
            ctx,
            model,
            dtype=params.dtype,
            pad_id=pad_of(tokenizer),
            batch_tokens=params.batch_tokens,
        )
        encode = encoder(tokenizer)
        answers = {
            name: answer(backend, questions, encode, normalised=is_cloze(name))
            for name, questions in asked.items()
        }
    write_json(ctx.out / "answers.json", answers)


@REGISTRY.kind(
    "checkpoint-transfer/attack-data",
    version=1,
    inputs={"model": "model", "world": "step", "forget": "pin", "questions": "step"},
    optional=frozenset({"world", "forget", "questions"}),
    outputs=("texts", "questions"),
    environment=(),
)
def run_attack_data(ctx: StepContext, params: AttackData) -> None:
    """Choose and cut what an attack trains on; the questions that watch it stand beside it."""
    from kit.methods.checkpoint_transfer.attack_data import cut, write_attack_data

    if ctx.has("world"):
        from kit.mini.facts.files import read_texts

        folder = ctx.step("world").path
        documents = [text.text for text in read_texts(folder, params.text_set)]
    else:
        folder = ctx.step("questions").path
        words = params.most_tokens * params.most_pieces
        documents = documents_of(ctx, "forget", params.fields, number=params.documents, words=words)
    pieces = cut(
        documents,
        encoder(tokenizer_of(ctx, ctx.model("model"))),
        number=params.documents,
        seed=params.seed,
        most_tokens=params.most_tokens,
        most_pieces=params.most_pieces,
    )
    write_attack_data(ctx.out, pieces, folder)
    ctx.note(f"{len(pieces)} pieces of {params.documents} documents")


@REGISTRY.kind(
    "checkpoint-transfer/tabulate",
    version=1,
    inputs=MEASURED,
    optional=frozenset(MEASURED),
    outputs=("results.json", "labels.jsonl"),
    environment=(),
)
def run_tabulate(ctx: StepContext, params: Tabulate) -> None:
    """Gather all measurements into ``results.json``."""
    from kit.methods.checkpoint_transfer.gather import Finished, tabulate

    table, collapses = tabulate(
        **{name: finished(ctx, name, Finished) for name in MEASURED},
        roles=ctx.roles,
        losses=params.losses,
        checkpoint=params.checkpoint,
        also=params.also,
        attack_steps=params.attack_steps,
    )
    table.write(ctx.out)
    for row in collapses:
        ctx.note(f"{row} picks one letter whatever is asked: broken, not unlearned")
