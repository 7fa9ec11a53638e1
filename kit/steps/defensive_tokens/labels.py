"""Steps ``training-data`` and ``self-label``: what is trained on."""

from __future__ import annotations

from collections import Counter

from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY
from kit.steps.common import FORMATS, model_imports
from kit.steps.defensive_tokens.files import write_json
from kit.steps.defensive_tokens.inputs import (
    GENERATION,
    attack_texts,
    engine,
    engine_ahead,
    reference_answers,
    samples_to_label,
    training_pool,
)
from kit.steps.defensive_tokens.params import SelfLabel, TrainingData
from kit.steps.defensive_tokens.remedies import GENERATION_MEMORY


@REGISTRY.kind(
    "defensive-tokens/training-data",
    version=1,
    inputs={"pool": "pin", "attacks": "pin", "references": "pin"},
    optional=frozenset({"references"}),
    needs={"attacks": ("style",)},
    outputs=("items.jsonl", "samples.jsonl", "schedule.json", "summary.json"),
    canaries=("test-word-leak",),
)
def run_training_data(ctx: StepContext, params: TrainingData) -> None:
    """Build the mixture and decide which items are consumed, in which order."""
    from kit.methods.defensive_tokens.plan_files import count_kinds, save_plan
    from kit.methods.defensive_tokens.recipe import plan_mixture
    from kit.methods.defensive_tokens.struq import leaked_items

    texts, style = attack_texts(ctx)
    pool = training_pool(ctx)
    plan = plan_mixture(
        pool,
        texts,
        style,
        mixture=params.builder,
        steps=params.steps,
        batch=params.batch,
        seed=params.seed,
        heldout=params.heldout,
        order=params.order,
        references=reference_answers(ctx),
    )
    save_plan(ctx.out, plan)
    counts = count_kinds(plan)
    mixture = dict(Counter(item.kind for item in plan.items))
    write_json(
        ctx.out / "summary.json",
        {"mixture": mixture, "consumed": counts, "samples": len(plan.samples)},
    )
    consumed = [plan.items[i] for i in [*plan.schedule.consumed(), *plan.heldout]]
    samples = {sample.id: sample for sample in pool}
    leaked = len(leaked_items(consumed, samples, texts.injected_word))
    ctx.canary(
        "test-word-leak",
        (leaked > 0) == (params.builder == "as-reported"),
        f"{leaked} of {len(consumed)} consumed items contain the test word",
    )


@REGISTRY.kind(
    "defensive-tokens/self-label",
    version=1,
    imports=model_imports,
    ahead=engine_ahead,
    environment=GENERATION,
    lowers_memory=GENERATION_MEMORY,
    inputs={"model": "model", "data": "step", "pool": "pin"},
    needs={"model": ("chat_format",)},
    science=lambda params: FORMATS,
    optional=frozenset({"data", "pool"}),
    # One of the two says what to label; the other must not move the key.
    unread=lambda params: frozenset({"data" if params.scope == "all" else "pool"}),
    outputs=("labels.jsonl", "summary.json"),
    canaries=("labels-are-answers",),
)
def run_self_label(ctx: StepContext, params: SelfLabel) -> None:
    """The undefended model's own answers to the clean samples."""
    from kit.methods.defensive_tokens.self_label import make_labels, save_labels

    tokenizer, chat, backend = engine(ctx, params)
    labels = make_labels(
        backend,
        tokenizer,
        chat,
        samples_to_label(ctx, params.scope),
        layout=params.layout,
        max_new_tokens=params.max_new_tokens,
        empty_data=params.empty_data,
    )
    save_labels(ctx.out / "labels.jsonl", labels)
    empty = sum(not label.text.strip() for label in labels.values())
    cut = sum(label.finish_reason == "length" for label in labels.values())
    write_json(ctx.out / "summary.json", {"labels": len(labels), "empty": empty, "truncated": cut})
    ctx.canary(
        "labels-are-answers",
        empty <= 0.05 * len(labels),
        f"{empty} of {len(labels)} labels are empty, {cut} were cut by the limit",
    )
