"""The step kinds of the world of fictional facts."""

from __future__ import annotations

from kit.engine.registry import REGISTRY, ModelOutput, StepKind
from kit.steps.mini.params import Checkpoint, FactsData, Pretrain
from kit.steps.mini.pretraining import (
    CHECKPOINTS,
    attributes,
    run_checkpoint,
    run_facts_data,
    run_pretrain,
)

for _kind in (
    StepKind(
        name="mini/facts-data",
        version=1,
        params=FactsData,
        run=run_facts_data,
        inputs={},
        outputs=("texts", "questions", "requests"),
        environment=(),
        doc="texts, questions and requests of a world of fictional facts",
    ),
    StepKind(
        name="mini/pretrain",
        version=1,
        params=Pretrain,
        run=run_pretrain,
        inputs={"data": "step"},
        outputs=("model", CHECKPOINTS, "training.json"),
        canaries=("weights-moved", "embeddings-frozen", "retained-is-known"),
        model=ModelOutput("model", attributes=attributes),
        doc="a miniature model that knows a world, and its early checkpoints",
    ),
    StepKind(
        name="mini/checkpoint",
        version=1,
        params=Checkpoint,
        run=run_checkpoint,
        inputs={"model": "model", "pretraining": "step"},
        outputs=("model",),
        model=ModelOutput("model", inherits="model"),
        environment=(),
        doc="an early checkpoint of a pretraining as a model of its own",
    ),
):
    REGISTRY.add(_kind)
