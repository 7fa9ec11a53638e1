"""The attack kinds: a model attacked and watched, and the same with the attacked model kept."""

from __future__ import annotations

from kit.durable import write_json
from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY, ModelOutput, StepKind
from kit.steps.common import load_model, model_folder
from kit.steps.tampering.params import Attack

TRAJECTORY = "trajectory.json"
SHARED = ("device", "dtype", "torch", "transformers", "world")
"""What may move a number of a training that several GPUs share."""


def run_attack(ctx: StepContext, params: Attack) -> None:
    """Attack a model and write its trajectory."""
    _attack(ctx, params)


def run_fine_tune(ctx: StepContext, params: Attack) -> None:
    """Attack a model, write its trajectory and the attacked model."""
    from kit.lm.load import load_tokenizer

    attacked = _attack(ctx, params)
    attacked.save(ctx.out / "model", load_tokenizer(model_folder(ctx, ctx.model("model"))))


def _attack(ctx: StepContext, params: Attack):  # type: ignore[no-untyped-def]
    from kit.evals.sets import pad_id
    from kit.lm.load import load_tokenizer
    from kit.tampering.run import run_attack
    from kit.tampering.settings import attack_of
    from kit.tampering.watched import attack_texts, record, watch
    from kit.train.checkpoints import CheckpointFolder
    from kit.train.engines import engine_factory, use_own_gpu

    use_own_gpu(ctx.device)
    source = ctx.model("model")
    tokenizer = load_tokenizer(model_folder(ctx, source))
    data = ctx.step("data").path
    points, watched = watch(data, tokenizer, params)
    attack = attack_of(params)
    attacked = run_attack(
        load_model(ctx, source, params.dtype, trainable=True),
        attack_texts(data, tokenizer, params.data),
        attack,
        pad_id=pad_id(tokenizer),
        evaluate=watched,
        at_steps=points,
        rows=params.rows,
        folder=CheckpointFolder(ctx.scratch / "checkpoints"),
        on_step=lambda step, loss: ctx.progress(step, params.steps, "steps"),
        make_engine=engine_factory(params.engine, ctx.device),
    )
    if attacked.engine.rank:
        return attacked
    write_json(ctx.out / TRAJECTORY, record(attacked.trajectory, watched))
    moved = attacked.trajectory.losses
    ctx.canary("attack-ran", len(moved) > 0, f"{len(moved)} steps")
    return attacked


for _kind in (
    StepKind(
        name="tampering/attack",
        version=1,
        params=Attack,
        run=run_attack,
        launch="torchrun",
        environment=SHARED,
        inputs={"model": "model", "data": "step"},
        outputs=(TRAJECTORY,),
        canaries=("attack-ran",),
        doc="a fine-tuning attack, watched",
    ),
    StepKind(
        name="tampering/fine-tune",
        version=1,
        params=Attack,
        run=run_fine_tune,
        launch="torchrun",
        environment=SHARED,
        inputs={"model": "model", "data": "step"},
        outputs=(TRAJECTORY, "model"),
        canaries=("attack-ran",),
        model=ModelOutput("model", inherits="model"),
        doc="a fine-tuning attack, watched, with the model that it leaves",
    ),
):
    REGISTRY.add(_kind)
