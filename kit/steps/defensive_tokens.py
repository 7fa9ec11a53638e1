"""Step kinds of the DefensiveTokens family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.engine.registry import REGISTRY, StepContext, StepKind
from kit.steps.defensive_tokens_inputs import (
    attack_texts,
    embeddings,
    evaluation_samples,
    frozen_model,
    generation_backend,
    model_folder,
    released_prefix,
    samples_to_label,
    tokenizer_and_format,
    training_pool,
)
from kit.steps.defensive_tokens_params import (
    Align,
    Evaluate,
    SelfLabel,
    Tabulate,
    TrainingData,
    TrainPrefix,
    Transfer,
)
from kit.steps.defensive_tokens_remedies import (
    GENERATION_MEMORY,
    TRAINING_MEMORY,
    TRAINING_STEADIER,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.methods.defensive_tokens.recipe import Recipe

SETS = "prefixes.safetensors"
GENERATION = ("device", "dtype", "torch", "transformers", "vllm", "batch_invariant")


def run_align(ctx: StepContext, params: Align) -> None:
    """Fit the orthogonal map between two vocabularies."""
    from kit.lm.load import load_tokenizer
    from kit.lm.vocabulary import renamed_control_ids
    from kit.methods.defensive_tokens.alignment_files import describe, save_alignment
    from kit.methods.defensive_tokens.procrustes import orthogonal_map, unit_length_weights

    renamed_control_ids(
        load_tokenizer(model_folder(ctx, "source")), load_tokenizer(model_folder(ctx, "target"))
    )
    source, target = embeddings(ctx, "source"), embeddings(ctx, "target")
    alignment = orthogonal_map(
        source,
        target,
        center=params.center,
        scale=params.scale,
        row_weights=unit_length_weights(source, target) if params.row_weights != "equal" else None,
        method=params.method,
        device=ctx.device,
    )
    save_alignment(ctx.out / "alignment.safetensors", alignment)
    facts = describe(alignment)
    _write_json(ctx.out / "alignment.json", facts)
    ctx.canary(
        "map-is-orthogonal",
        facts["orthogonality_error"] < 1e-6,
        f"||W^T W - I||_F = {facts['orthogonality_error']:.1e}",
    )
    ctx.canary(
        "map-is-unique",
        bool(facts["unique"]),
        f"smallest singular value {facts['smallest_singular_value']:.3g}",
    )


def run_transfer(ctx: StepContext, params: Transfer) -> None:
    """Carry the released prefix over, and make the controls."""
    from kit.methods.defensive_tokens.alignment_files import load_alignment
    from kit.methods.defensive_tokens.prefix_sets import save_sets
    from kit.methods.defensive_tokens.transfer_sets import transfer_geometry, transfer_sets

    alignment = load_alignment(ctx.step("align").path / "alignment.safetensors")
    own = released_prefix(ctx, "source", n=params.tokens)
    native = released_prefix(ctx, "target", n=params.tokens)
    made = transfer_sets(own, native, alignment, seed=params.seed)
    sets: dict[str, Tensor] = {name: made[name] for name in params.sets}
    save_sets(ctx.out / SETS, sets)
    _write_json(ctx.out / "geometry.json", transfer_geometry(own, native, sets))


def run_training_data(ctx: StepContext, params: TrainingData) -> None:
    """Build the mixture and decide which items are consumed, in which order."""
    from kit.methods.defensive_tokens.plan_files import count_kinds, save_plan
    from kit.methods.defensive_tokens.recipe import plan_mixture

    texts, style = attack_texts(ctx)
    plan = plan_mixture(
        training_pool(ctx),
        texts,
        style,
        mixture=params.builder,
        steps=params.steps,
        batch=params.batch,
        seed=params.seed,
    )
    save_plan(ctx.out, plan)
    counts = count_kinds(plan)
    _write_json(ctx.out / "summary.json", {"consumed": counts, "samples": len(plan.samples)})
    consumed = [plan.items[i] for i in plan.schedule.consumed()]
    leaked = sum(texts.injected_word.lower() in (item.data or "").lower() for item in consumed)
    ctx.canary(
        "test-word-leak",
        (leaked > 0) == (params.builder == "as-reported"),
        f"{leaked} of {len(consumed)} consumed items contain the test word",
    )


def run_self_label(ctx: StepContext, params: SelfLabel) -> None:
    """The undefended model's own answers to the clean samples."""
    from kit.lm.prefix import BEFORE_BOS
    from kit.methods.defensive_tokens.self_label import known_labels, make_labels, save_labels

    tokenizer, chat = tokenizer_and_format(ctx)
    samples, known = samples_to_label(ctx, params.scope)
    labels = known_labels(known, samples)
    rest = [sample for sample in samples if sample.id not in labels]
    if rest:
        backend = generation_backend(ctx, params, tokenizer, chat.pad_id(tokenizer))
        made = make_labels(
            backend,
            tokenizer,
            chat,
            rest,
            layout=BEFORE_BOS,
            max_new_tokens=params.max_new_tokens,
            empty_data=params.empty_data,
        )
        labels = {sample.id: (labels | made)[sample.id] for sample in samples}
    save_labels(ctx.out / "labels.jsonl", labels)
    empty = sum(not label.text.strip() for label in labels.values())
    cut = sum(label.finish_reason == "length" for label in labels.values())
    _write_json(ctx.out / "summary.json", {"labels": len(labels), "empty": empty, "truncated": cut})
    ctx.canary(
        "labels-are-answers",
        empty <= 0.05 * len(labels),
        f"{empty} of {len(labels)} labels are empty, {cut} were cut by the limit"
        # Not in an output: what is in the store decides it, and must not decide a digest.
        + f", {len(labels) - len(rest)} were there from another number of steps" * bool(known),
    )


def run_train_prefix(ctx: StepContext, params: TrainPrefix) -> None:
    """Train the prefix, the model frozen; resumes from its last checkpoint after a kill."""
    from kit.lm.fingerprint import fingerprint
    from kit.methods.defensive_tokens.gather import training_facts
    from kit.methods.defensive_tokens.plan_files import load_plan
    from kit.methods.defensive_tokens.prefix_sets import save_sets
    from kit.methods.defensive_tokens.recipe import fit
    from kit.methods.defensive_tokens.self_label import load_labels
    from kit.train.checkpoints import Checkpoints

    if not params.checkpoints or not 0 <= min(params.checkpoints) <= max(params.checkpoints):
        raise ValueError(f"checkpoints must be steps from 0 on, at least one: {params.checkpoints}")
    if max(params.checkpoints) > params.steps:
        raise ValueError(
            f"checkpoint {max(params.checkpoints)} lies behind the last of {params.steps} steps"
        )
    model = frozen_model(ctx, params.dtype)
    tokenizer, chat = tokenizer_and_format(ctx)
    before = fingerprint(model)
    kept = Checkpoints(ctx.scratch)
    initial = _initial(ctx, params, model)
    state = kept.resume(initial, params.checkpoints)
    if kept.damaged:
        ctx.note(f"damaged and not used: {', '.join(kept.damaged)}; from step {state.step} on")

    def on_step(step: int, loss: float) -> None:
        kept.on_step(step, loss)
        ctx.progress(step, params.steps, "steps")
        ctx.metric("loss", loss, step)

    run = fit(
        model,
        tokenizer,
        chat,
        load_plan(ctx.step("data").path),
        load_labels(ctx.step("labels").path / "labels.jsonl"),
        _recipe(params),
        state,
        on_checkpoint=kept.save,
        on_step=on_step,
    )
    prefixes = kept.prefixes()
    save_sets(ctx.out / SETS, {f"{params.label}-{s}": prefixes[s] for s in params.checkpoints})
    _write_json(
        ctx.out / "training.json",
        training_facts(params.label, kept.losses(), {s: prefixes[s] for s in params.checkpoints}),
    )
    moved = float((run.state.prefix.double() - initial.double()).norm())
    ctx.canary("prefix-moved", moved > 0, f"the prefix moved by {moved:.3g}")
    ctx.canary(
        "model-is-frozen",
        fingerprint(model) == before,
        f"{initial.numel()} parameters trained, one fingerprint of the weights before and after",
    )


def run_evaluate(ctx: StepContext, params: Evaluate) -> None:
    """Attack every token set of one model; one model load for all."""
    from kit.methods.defensive_tokens.evaluate import evaluate_prefix
    from kit.methods.defensive_tokens.prompt_checks import PromptCheck, check_prompts, combine
    from kit.methods.defensive_tokens.scores import score_table
    from kit.methods.defensive_tokens.tables import response_rows

    tokenizer, chat = tokenizer_and_format(ctx)
    backend = generation_backend(ctx, params, tokenizer, chat.pad_id(tokenizer))
    texts, style = attack_texts(ctx)
    samples = evaluation_samples(ctx)
    rows = _conditions(ctx, params)
    scores: dict[str, Any] = {}
    checks: list[PromptCheck] = []
    with (ctx.out / "responses.jsonl").open("w", encoding="utf-8") as file:
        for done, (name, (prefix, defence)) in enumerate(rows.items(), start=1):
            evaluation = evaluate_prefix(
                backend,
                tokenizer,
                chat,
                params.layout,
                prefix,
                samples,
                texts,
                style,
                attacks=params.attacks,
                max_new_tokens=params.max_new_tokens,
                seed=params.seed,
                references_are_right=params.accuracy,
                defence=defence,
            )
            scores[name] = score_table(evaluation)
            for row in response_rows(evaluation):
                file.write(json.dumps({"set": name, **row}, ensure_ascii=False) + "\n")
            checks += check_prompts(
                evaluation,
                texts,
                slots=0 if prefix is None else len(prefix),
                vocabulary_size=backend.vocabulary_size,
            )
            ctx.progress(done, len(rows), "token sets")
    _write_json(ctx.out / "scores.json", scores)
    for check in combine(checks):
        ctx.canary(check.id, check.passed, check.detail)
    if ctx.rehearsal:
        return  # random weights say nothing: no response can differ in what is counted
    words = {json.dumps(score["asr"]) for score in scores.values()}
    ctx.canary(
        "labels-differ-between-sets",
        len(scores) == 1 or len(words) > 1,
        f"{len(words)} distinct label tables in {len(scores)} token sets",
    )


def run_tabulate(ctx: StepContext, params: Tabulate) -> None:
    """Gather all measurements into ``results.json``."""
    from kit.methods.defensive_tokens.gather import Utility, tabulate

    tables = tabulate(
        evaluations=_folders(ctx, "evaluations"),
        alignments=_folders(ctx, "alignments"),
        transfers=_folders(ctx, "transfers"),
        trainings=_folders(ctx, "trainings") + _folders(ctx, "controls"),
        native=params.native,
        published_full=params.published_full,
        refusal_rule=params.refusal_rule,
        loss_window=params.loss_window,
        utility=Utility(params.utility_sets, params.utility_not_run, params.utility),
    )
    # The engine stamps experiment, version and profile when it publishes the results.
    stamp = {"schema_version": 1, "experiment": "", "version": "", "profile": ""}
    _write_json(ctx.out / "results.json", {**stamp, "cells": tables.cells, "series": tables.series})
    with (ctx.out / "labels.jsonl").open("w", encoding="utf-8") as file:
        for line in tables.labels:
            file.write(json.dumps(line) + "\n")


def _folders(ctx: StepContext, name: str) -> list[Any]:
    from kit.methods.defensive_tokens.gather import StageFolder

    if not ctx.has(name):
        return []
    return [StageFolder(step.instance, step.path, step.axes) for step in ctx.steps(name)]


def _initial(ctx: StepContext, params: TrainPrefix, model: PreTrainedModel) -> Tensor:
    from kit.lm.model import embedding_matrix
    from kit.methods.defensive_tokens.prefix_sets import load_sets
    from kit.methods.defensive_tokens.transfer import normal_init, vocabulary_init

    embeddings = embedding_matrix(model)
    if params.init == "transferred":
        if not ctx.has("start"):
            raise ValueError("init 'transferred' needs the input 'start', a transfer step")
        sets = load_sets(ctx.step("start").path / SETS)
        if "procrustes" not in sets:
            raise ValueError(
                "init 'transferred' starts from the set 'procrustes'; the transfer step made only: "
                + ", ".join(sets)
            )
        return sets["procrustes"]
    if params.init == "vocabulary":
        return vocabulary_init(embeddings, params.tokens, params.seed)
    return normal_init(params.tokens, embeddings.shape[1], params.seed)


def _recipe(params: TrainPrefix) -> Recipe:
    from kit.methods.defensive_tokens.examples import Encoding
    from kit.methods.defensive_tokens.recipe import Recipe
    from kit.train.prefix_tuning import PrefixTraining

    return Recipe(
        mixture="",  # decided by the data step
        encoding=Encoding(
            layout=params.layout,
            label_tokens=params.label_tokens,
            end_truncated=params.end_truncated,
        ),
        training=PrefixTraining(
            steps=params.steps,
            micro_batch=params.micro_batch,
            accumulation=params.accumulation,
            learning_rate=params.lr,
            schedule=params.schedule,
            checkpoint_steps=tuple(params.checkpoints),
            forward=params.forward,
            compile=params.compile,
            low_memory=params.low_memory,
            forward_rows=params.forward_rows,
        ),
        seed=params.seed,
    )


def _conditions(ctx: StepContext, params: Evaluate) -> dict[str, tuple[Tensor | None, Any]]:
    """Row name -> prefix and prompting defence, in table order."""
    from kit.methods.defensive_tokens.prefix_sets import load_sets
    from kit.methods.defensive_tokens.prompt_defences import NO_DEFENCE, PromptDefence

    rows: dict[str, tuple[Tensor | None, Any]] = {}
    for defence in params.defences:
        if defence == "native":
            rows[defence] = (released_prefix(ctx, "model", n=params.tokens), NO_DEFENCE)
        elif defence == "reminder":
            rows[defence] = (None, PromptDefence(after_instruction=params.reminder))
        elif defence == "sandwich":
            rows[defence] = (None, PromptDefence(after_data=params.sandwich))
        else:
            rows[defence] = (None, NO_DEFENCE)
    for name in ("transferred", "trained", "control"):
        if ctx.has(name):
            for label, prefix in load_sets(ctx.step(name).path / SETS).items():
                if label in rows:
                    raise ValueError(f"two token sets are called {label!r}: give one another label")
                rows[label] = (prefix, NO_DEFENCE)
    return rows


def _write_json(path: Path, value: Any) -> None:
    try:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path.name} would contain a number that is not finite") from error
    path.write_text(text + "\n", encoding="utf-8")


for _kind in (
    StepKind(
        name="defensive-tokens/align",
        version=1,
        params=Align,
        run=run_align,
        inputs={"source": "pin", "target": "pin"},
        outputs=("alignment.safetensors", "alignment.json"),
        doc="orthogonal Procrustes between two vocabularies",
    ),
    StepKind(
        name="defensive-tokens/transfer",
        version=2,
        params=Transfer,
        run=run_transfer,
        inputs={"source": "pin", "target": "pin", "released": "pin", "align": "step"},
        outputs=(SETS, "geometry.json"),
        doc="transferred prefix and its controls",
    ),
    StepKind(
        name="defensive-tokens/training-data",
        version=1,
        params=TrainingData,
        run=run_training_data,
        inputs={"pool": "pin", "attacks": "pin"},
        outputs=("items.jsonl", "samples.jsonl", "schedule.json", "summary.json"),
        doc="StruQ mixture and the order in which it is consumed",
    ),
    StepKind(
        name="defensive-tokens/self-label",
        version=1,
        environment=GENERATION,
        lowers_memory=GENERATION_MEMORY,
        params=SelfLabel,
        run=run_self_label,
        inputs={"model": "pin", "data": "step", "pool": "pin"},
        optional=frozenset({"data", "pool"}),
        # One of the two says what to label; the other must not move the key.
        unread=lambda params: frozenset({"data" if params.scope == "all" else "pool"}),
        outputs=("labels.jsonl", "summary.json"),
        doc="answers of the undefended model",
    ),
    StepKind(
        name="defensive-tokens/train-prefix",
        version=1,
        params=TrainPrefix,
        lowers_memory=TRAINING_MEMORY,
        steadies=TRAINING_STEADIER,
        run=run_train_prefix,
        inputs={"model": "pin", "data": "step", "labels": "step", "start": "step"},
        optional=frozenset({"start"}),
        outputs=(SETS, "training.json"),
        doc="training of the prefix, the model frozen",
    ),
    StepKind(
        name="defensive-tokens/evaluate",
        version=2,
        environment=GENERATION,
        lowers_memory=GENERATION_MEMORY,
        params=Evaluate,
        run=run_evaluate,
        inputs={
            "model": "pin",
            "evaluation": "pin",
            "attacks": "pin",
            "released": "pin",
            "transferred": "step",
            "trained": "step",
            "control": "step",
        },
        optional=frozenset({"transferred", "trained", "control"}),
        outputs=("responses.jsonl", "scores.json"),
        doc="attack success, refusal and accuracy of every token set of one model",
    ),
    StepKind(
        name="defensive-tokens/tabulate",
        version=2,
        params=Tabulate,
        run=run_tabulate,
        inputs={
            "evaluations": "steps",
            "alignments": "steps",
            "transfers": "steps",
            "trainings": "steps",
            "controls": "steps",
        },
        optional=frozenset({"alignments", "transfers", "trainings", "controls"}),
        outputs=("results.json", "labels.jsonl"),
        environment=(),
        doc="all measurements as cells",
    ),
):
    REGISTRY.add(_kind)
