"""The step ``unlearn``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.durable import write_json
from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY, ModelOutput
from kit.steps.checkpoint_transfer.inputs import maps_of, pad_of, tokenizer_of
from kit.steps.checkpoint_transfer.params import RandomInit, Unlearn
from kit.steps.common import load_model, model_folder, model_imports, same_named

if TYPE_CHECKING:
    from kit.methods.checkpoint_transfer.recipe import Recipe


def recipe_of(params: Unlearn) -> Recipe:
    """The recipe that the parameters spell out, on top of their preset."""
    from kit.methods.checkpoint_transfer.counting import share_of_pairs
    from kit.methods.checkpoint_transfer.presets import make_recipe
    from kit.methods.checkpoint_transfer.recipe import Recipe

    settings = same_named(params, Recipe)
    settings["examples"] = share_of_pairs(params.examples, params.fraction, params.global_batch)
    if params.muon_rows is not None:
        settings["muon_routing"] = f"below-{params.muon_rows}-rows"
    return make_recipe(params.preset, **settings)


@REGISTRY.kind(
    "checkpoint-transfer/unlearn",
    version=1,
    imports=model_imports,
    inputs={
        "teacher": "model",
        "student": "model",
        "maps": "step",
        "published_maps": "pin",
        "texts": "step",
        "targets": "step",
    },
    optional=frozenset({"maps", "published_maps", "targets"}),
    outputs=("model", "training.json"),
    canaries=("teacher-unchanged", "only-trained-weights-moved"),
    model=ModelOutput("model", inherits="student"),
)
def run_unlearn(ctx: StepContext, params: Unlearn) -> None:
    """Pull the final model's states on forget text to the mapped ones of the early checkpoint."""
    from kit.methods.checkpoint_transfer.targets import FORGET, RETAIN, kept_states
    from kit.methods.checkpoint_transfer.texts import read_texts
    from kit.methods.checkpoint_transfer.whole_run import Kept, run_recipe, save, summary
    from kit.train.checkpoints import CheckpointFolder
    from kit.train.engine import Precision

    recipe = recipe_of(params)
    tokenizer = tokenizer_of(ctx, ctx.model("student"))
    pairs = read_texts(ctx.step("texts").path).pairs(
        recipe.examples, pad_id=pad_of(tokenizer), device=ctx.device
    )
    kept = Kept()
    if ctx.has("targets"):
        folder = ctx.step("targets").path
        kept = Kept(kept_states(folder, FORGET), kept_states(folder, RETAIN))
    done = run_recipe(
        load_model(ctx, ctx.model("student"), params.dtype),
        load_model(ctx, ctx.model("teacher"), params.dtype),
        maps_of(ctx),
        recipe,
        pairs,
        seed=params.seed,
        precision=Precision(compute=params.compute),
        kept=kept,
        folder=CheckpointFolder(ctx.scratch / "checkpoints"),
        save_every=params.save_every,
        on_step=lambda step: ctx.progress(step, recipe.steps.optimizer_steps, "optimizer steps"),
        rows=params.rows or None,
        compiled=params.compiled,
    )
    save(done, tokenizer, ctx.out / "model")
    write_json(ctx.out / "training.json", summary(done, recipe))
    ctx.canary("teacher-unchanged", done.teacher_unchanged, "hash of the teacher's weights")
    stray = sorted(done.moved - done.allowed)
    ctx.canary(
        "only-trained-weights-moved",
        bool(done.moved) and not stray,
        f"{len(done.moved)} tensors moved of {len(done.allowed)} that may"
        + (f"; {stray[0]} may not" if stray else ""),
    )
    if not recipe.full_rank:
        ctx.canary(
            "model-under-the-adapters-unchanged",
            done.base_moved == 0,
            f"{done.base_moved} tensors differ with the adapters off",
        )
    if done.run.diverged_at is not None:
        ctx.note(f"diverged at optimizer step {done.run.diverged_at}; the recipe goes on")
    if not done.run.finite:
        ctx.note("weights are not finite at the end: there is no model to evaluate")


@REGISTRY.kind(
    "checkpoint-transfer/random-init",
    version=1,
    inputs={"model": "model"},
    outputs=("model",),
    model=ModelOutput("model", inherits="model"),
    environment=(),
)
def run_random_init(ctx: StepContext, params: RandomInit) -> None:
    """Write a model of the same shape that was never trained.

    The control of the long attacks: how much their own texts teach a model that knows nothing.
    """
    from kit.lm.load import save_model
    from kit.lm.standin import load_random_model

    source = ctx.model("model")
    folder = model_folder(ctx, source)
    model = load_random_model(folder, dtype="float32", device=ctx.device, seed=params.seed)
    save_model(model, tokenizer_of(ctx, source), ctx.out / "model")
