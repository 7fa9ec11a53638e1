"""The steps: data of a world, pretraining, a checkpoint of it as a model of its own."""

from __future__ import annotations

import shutil

from kit.durable import write_json
from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY, Attributes, ModelOutput
from kit.steps.common import same_named
from kit.steps.mini.params import Checkpoint, FactsData, Pretrain

CHECKPOINTS = "checkpoints"


def attributes(params: Pretrain) -> Attributes:
    """What is declared of a pretrained model, as a pin would."""
    return {
        "architecture": params.architecture,
        "chat_format": "mini",
        "layers": params.layers,
        "hidden_size": params.width,
    }


@REGISTRY.kind(
    "mini/facts-data",
    version=1,
    inputs={},
    outputs=("texts", "questions", "requests"),
    environment=(),
)
def run_facts_data(ctx: StepContext, params: FactsData) -> None:
    """Write texts, questions and requests of a seed."""
    from kit.mini.facts.files import write_world

    write_world(ctx.out, params.seed)


@REGISTRY.kind(
    "mini/pretrain",
    version=1,
    inputs={"data": "step"},
    outputs=("model", CHECKPOINTS, "training.json"),
    canaries=("weights-moved", "embeddings-frozen", "retained-is-known"),
    model=ModelOutput("model", attributes=attributes),
)
def run_pretrain(ctx: StepContext, params: Pretrain) -> None:
    """Pretrain a model, keeping checkpoints; half a minute, so a stopped step begins again."""
    from kit.mini.facts.measure import LEAST_KNOWN, MOST_GUESSED
    from kit.mini.facts.model import Shape
    from kit.mini.facts.pretrain import Recipe
    from kit.mini.facts.runs import pretrain_into

    def on_step(step: int, loss: float) -> None:
        ctx.progress(step, params.steps, "steps")
        ctx.metric("loss", loss, step)

    made = pretrain_into(
        ctx.out / "model",
        ctx.out / CHECKPOINTS,
        ctx.step("data").path,
        Shape(**same_named(params, Shape)),
        Recipe(**same_named(params, Recipe)),
        params.seed,
        requests=params.requests,
        checkpoints=params.checkpoints,
        on_step=on_step,
    )
    write_json(
        ctx.out / "training.json",
        {"losses": made.losses, "shares": {str(step): s for step, s in made.shares.items()}},
    )
    changed, trained = made.moved
    ctx.canary("weights-moved", changed == trained, f"{changed} of {trained} tensors moved")
    ctx.canary("embeddings-frozen", made.frozen, "input and output embeddings as they began")
    final = made.shares[params.steps]
    known = final["forget_judge"]
    ctx.canary(
        "retained-is-known",
        final["retain"] >= LEAST_KNOWN,
        f"{final['retain']:.3f} of the retain questions; at least {LEAST_KNOWN} wanted",
    )
    if params.forget:
        ctx.canary(
            "compounds-are-known",
            known >= LEAST_KNOWN,
            f"{known:.3f} of the judge's questions; at least {LEAST_KNOWN} wanted",
        )
    else:
        ctx.canary(
            "compounds-are-not-known",
            known <= MOST_GUESSED,
            f"{known:.3f} of the judge's questions; at most {MOST_GUESSED} wanted",
        )


@REGISTRY.kind(
    "mini/checkpoint",
    version=1,
    inputs={"model": "model", "pretraining": "step"},
    outputs=("model",),
    model=ModelOutput("model", inherits="model"),
    environment=(),
)
def run_checkpoint(ctx: StepContext, params: Checkpoint) -> None:
    """Copy a checkpoint of the pretraining, so that other steps can read it as a model."""
    from kit.mini.facts.runs import find_checkpoint

    kept = find_checkpoint(ctx.step("pretraining").path / CHECKPOINTS, params.step)
    shutil.copytree(kept, ctx.out / "model")
