"""Step ``train-prefix``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY
from kit.steps.common import FORMATS, model_imports, same_named
from kit.steps.defensive_tokens.files import SETS, write_json
from kit.steps.defensive_tokens.inputs import frozen_model, tokenizer_and_format
from kit.steps.defensive_tokens.params import TrainPrefix
from kit.steps.defensive_tokens.remedies import TRAINING_MEMORY, TRAINING_STEADIER

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.methods.defensive_tokens.recipe import Recipe


def model_ahead(ctx: StepContext, params: TrainPrefix) -> dict[str, Any]:
    """The model, compiled where it is to be, and its tokenizer."""
    return {"model": _compiled_model(ctx, params), "tokenizer": tokenizer_and_format(ctx)}


MOST_MASKED = 0.01
"""Share of the items whose prompt may leave no room for a label."""


@REGISTRY.kind(
    "defensive-tokens/train-prefix",
    version=1,
    imports=lambda params: (*model_imports(params), "kit.methods.defensive_tokens.recipe"),
    ahead=model_ahead,
    lowers_memory=TRAINING_MEMORY,
    steadies=TRAINING_STEADIER,
    inputs={"model": "model", "data": "step", "labels": "step", "start": "step"},
    needs={"model": ("chat_format",)},
    science=lambda params: FORMATS,
    optional=frozenset({"start"}),
    outputs=(SETS, "training.json"),
    canaries=("prompts-leave-room", "prefix-moved", "model-is-frozen"),
)
def run_train_prefix(ctx: StepContext, params: TrainPrefix) -> None:
    """Train the prefix, the model frozen; resumes from its last checkpoint after a kill."""
    from kit.lm.fingerprint import fingerprint
    from kit.methods.defensive_tokens.plan_files import load_plan
    from kit.methods.defensive_tokens.prefix_sets import save_sets
    from kit.methods.defensive_tokens.prefix_training.checkpoints import Checkpoints
    from kit.methods.defensive_tokens.prefix_training.tuning import distance
    from kit.methods.defensive_tokens.recipe import fit, heldout_losses
    from kit.methods.defensive_tokens.self_label import load_labels
    from kit.methods.defensive_tokens.stage_numbers import training_facts

    if not params.checkpoints or not 0 <= min(params.checkpoints) <= max(params.checkpoints):
        raise ValueError(f"checkpoints must be steps from 0 on, at least one: {params.checkpoints}")
    if max(params.checkpoints) > params.steps:
        raise ValueError(
            f"checkpoint {max(params.checkpoints)} lies behind the last of {params.steps} steps"
        )
    model = ctx.made("model", lambda: _compiled_model(ctx, params))
    tokenizer, chat = ctx.made("tokenizer", lambda: tokenizer_and_format(ctx))
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

    plan, recipe = load_plan(ctx.step("data").path), _recipe(params)
    labels = load_labels(ctx.step("labels").path / "labels.jsonl")
    given = (model, tokenizer, chat, plan, labels, recipe)
    masked: list[str] = []
    run = fit(*given, state, on_checkpoint=kept.save, on_step=on_step, on_masked=masked.extend)
    kept_prefixes = kept.prefixes()
    prefixes = {step: kept_prefixes[step] for step in params.checkpoints}
    save_sets(ctx.out / SETS, {f"{params.label}-{s}": prefix for s, prefix in prefixes.items()})
    heldout = heldout_losses(*given, prefixes) if plan.heldout else {}
    built = json.loads((ctx.step("data").path / "summary.json").read_text(encoding="utf-8"))
    facts = training_facts(
        params.label, kept.losses(), prefixes, heldout, mixture=built.get("mixture")
    )
    write_json(ctx.out / "training.json", facts)
    moved = distance(run.state.prefix, initial)
    items = len(plan.schedule.consumed())
    ctx.canary(
        "prompts-leave-room",
        len(masked) <= MOST_MASKED * items,
        f"{len(masked)} of {items} items train nothing, because their prompt fills "
        f"{params.max_length} ids" + (f": {', '.join(masked[:5])}" if masked else ""),
    )
    ctx.canary("prefix-moved", moved > 0, f"the prefix moved by {moved:.3g}")
    ctx.canary(
        "model-is-frozen",
        fingerprint(model) == before,
        f"{initial.numel()} parameters trained, one fingerprint of the weights before and after",
    )


def _compiled_model(ctx: StepContext, params: TrainPrefix) -> PreTrainedModel:
    from kit.methods.defensive_tokens.prefix_training.loss import compile_ahead

    model = frozen_model(ctx, params.dtype)
    compile_ahead(model, _recipe(params).training, n=params.tokens)
    return model


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
    from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
    from kit.methods.defensive_tokens.recipe import Recipe

    return Recipe(
        mixture="",  # decided by the data step
        encoding=Encoding(**same_named(params, Encoding)),
        training=PrefixTraining(
            learning_rate=params.lr,
            checkpoint_steps=tuple(params.checkpoints),
            **same_named(params, PrefixTraining),
        ),
        seed=params.seed,
    )
