"""Steps ``texts``, ``fit`` and ``oracle-patch``: what is there before any unlearning."""

from __future__ import annotations

from kit.durable import write_json
from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY
from kit.steps.checkpoint_transfer.inputs import (
    documents_of,
    encoder,
    maps_of,
    pad_of,
    padded,
    questions_of,
    tokenizer_of,
)
from kit.steps.checkpoint_transfer.params import Fit, Oracle, Targets, Texts
from kit.steps.common import load_model, model_imports, same_named


@REGISTRY.kind(
    "checkpoint-transfer/texts",
    version=1,
    inputs={"model": "model", "world": "step", "forget": "pin", "retain": "pin"},
    optional=frozenset({"world", "forget", "retain"}),
    outputs=("forget.jsonl", "retain.jsonl", "fit.jsonl", "held-out.jsonl"),
)
def run_texts(ctx: StepContext, params: Texts) -> None:
    """Choose forget and retain text, of a miniature world or of pinned documents."""
    from kit.methods.checkpoint_transfer.texts import choose_texts, write_texts

    if ctx.has("world"):
        from kit.mini.facts.files import read_texts

        world = ctx.step("world").path
        forget = [text.text for text in read_texts(world, params.forget_set)]
        retain = [text.text for text in read_texts(world, params.retain_set)]
    else:
        number, words = params.pairs + params.fit + params.held_out, params.most_tokens
        forget = documents_of(ctx, "forget", params.forget_fields, number=number, words=words)
        retain = documents_of(ctx, "retain", params.retain_fields, number=number, words=words)
    texts = choose_texts(
        forget,
        retain,
        encoder(tokenizer_of(ctx, ctx.model("model"))),
        pairs=params.pairs,
        fit=params.fit,
        held_out=params.held_out,
        seed=params.seed,
        most_tokens=params.most_tokens,
        forget_order=params.forget_order,
        repeat=params.repeat,
    )
    write_texts(ctx.out, texts)


@REGISTRY.kind(
    "checkpoint-transfer/fit",
    version=1,
    imports=model_imports,
    inputs={"teacher": "model", "student": "model", "texts": "step"},
    outputs=("maps",),
    canaries=("maps-are-closer-than-raw-states",),
)
def run_fit(ctx: StepContext, params: Fit) -> None:
    """Fit an affine map a layer, from the early checkpoint's states to the final model's."""
    from kit.methods.checkpoint_transfer.affine_files import save_maps
    from kit.methods.checkpoint_transfer.fitting import fit_maps
    from kit.methods.checkpoint_transfer.recipe import BLOCK_INPUT
    from kit.methods.checkpoint_transfer.texts import read_texts

    texts = read_texts(ctx.step("texts").path)
    pad = pad_of(tokenizer_of(ctx, ctx.model("student")))
    shift = params.fit_at == BLOCK_INPUT
    fitted = fit_maps(
        load_model(ctx, ctx.model("teacher"), params.dtype),
        load_model(ctx, ctx.model("student"), params.dtype),
        padded(texts.fit, params.batch, pad, ctx.device),
        padded(texts.held_out, params.batch, pad, ctx.device),
        [layer - shift for layer in params.layers],
        alpha=params.alpha,
    )
    save_maps(
        ctx.out / "maps",
        fitted.maps,
        alpha=params.alpha,
        provenance={"texts": len(texts.fit), "held_out_texts": len(texts.held_out)},
        fit=fitted.fit,
        held_out=fitted.held_out,
    )
    mapped = {block: quality.mse for block, quality in fitted.held_out.items()}
    raw = {block: quality.mse for block, quality in fitted.unmapped.items()}
    shown = ", ".join(f"block {b}: {mapped[b]:.4g} of {raw[b]:.4g}" for b in mapped)
    ctx.canary(
        "maps-are-closer-than-raw-states",
        ctx.rehearsal or all(mapped[block] < raw[block] for block in mapped),
        f"squared error on held-out text, mapped and raw: {shown}",
    )


@REGISTRY.kind(
    "checkpoint-transfer/targets",
    version=1,
    imports=model_imports,
    inputs={
        "teacher": "model",
        "student": "model",
        "maps": "step",
        "published_maps": "pin",
        "texts": "step",
    },
    optional=frozenset({"maps", "published_maps"}),
    outputs=("kept.json",),
    intermediate=True,
)
def run_targets(ctx: StepContext, params: Targets) -> None:
    """Keep teacher targets and retain reference of the first pairs, as far as the budget goes."""
    from kit.lm.model import inner_model
    from kit.methods.checkpoint_transfer.recipe import Recipe
    from kit.methods.checkpoint_transfer.student import adapter
    from kit.methods.checkpoint_transfer.targets import keep_pairs
    from kit.methods.checkpoint_transfer.texts import read_texts
    from kit.train.compile_ahead import Ahead, compiling_ahead

    teacher = load_model(ctx, ctx.model("teacher"), params.dtype)
    student = load_model(ctx, ctx.model("student"), params.dtype)
    pad = pad_of(tokenizer_of(ctx, ctx.model("student")))
    pairs = read_texts(ctx.step("texts").path).pairs(params.pairs, pad_id=pad, device=ctx.device)
    recipe = Recipe(1.0, 1.0, **same_named(params, Recipe))
    lengths = {len(text) for text in (*pairs.forget, *pairs.retain)}
    graphs = [
        Ahead(
            ctx.model("student").path,
            adapter(student, recipe),
            params.compiled_rows,
            max(lengths),
            padded,
            params.dtype,
            params.compute,
            str(ctx.device),
        )
        for padded in (False, True)
        if params.compiled_rows and (not padded or len(lengths) > 1)
    ]
    with compiling_ahead(*graphs) as compiling:
        plan, written = keep_pairs(
            ctx.out,
            teacher,
            student,
            maps_of(ctx) if params.affine else None,
            recipe,
            pairs,
            width=int(inner_model(student).config.hidden_size),
            uses=params.uses,
            budget=int(params.budget_gb * 2**30),
            batch=params.batch,
            dtype=params.kept,
        )
    if compiling.failed:
        ctx.note(f"nothing was compiled ahead, the first row will: {compiling.failed[-300:]}")
    write_json(ctx.out / "kept.json", {"retain": plan.retain, "forget": plan.forget})
    ctx.note(
        f"kept the retain reference of {plan.retain} pairs and the targets of {plan.forget}, "
        f"{written / 2**30:.2f} GiB"
    )


@REGISTRY.kind(
    "checkpoint-transfer/oracle-patch",
    version=1,
    imports=model_imports,
    inputs={
        "teacher": "model",
        "student": "model",
        "maps": "step",
        "published_maps": "pin",
        "questions": "step",
        "published": "step",
    },
    optional=frozenset({"maps", "published_maps", "questions", "published"}),
    outputs=("answers.json",),
    canaries=("target-does-not-know",),
)
def run_oracle(ctx: StepContext, params: Oracle) -> None:
    """Score the final model computing on from the mapped states: what perfect transfer reaches."""
    from kit.lm.generate import TransformersBackend
    from kit.methods.checkpoint_transfer.answers import patched_answers, share

    student, tokenizer = ctx.model("student"), tokenizer_of(ctx, ctx.model("student"))
    model = load_model(ctx, student, params.dtype)
    by_block = patched_answers(
        model,
        load_model(ctx, ctx.model("teacher"), params.dtype),
        maps_of(ctx) or {},
        TransformersBackend(model, pad_of(tokenizer), max_tokens=params.batch_tokens),
        questions_of(ctx, params.questions),
        encoder(tokenizer),
    )
    blocks = {str(block): answers for block, answers in by_block.items()}
    write_json(ctx.out / "answers.json", {params.questions: {"blocks": blocks}})
    known = {block: share(answers) for block, answers in by_block.items()}
    deepest = max(known)
    shown = ", ".join(f"block {block}: {value:.3f}" for block, value in known.items())
    ctx.canary(
        "target-does-not-know",
        ctx.rehearsal or known[deepest] <= params.most_known,
        f"right with the mapped state: {shown}; at most {params.most_known} wanted at the deepest",
    )
