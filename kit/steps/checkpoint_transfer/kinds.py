"""The step kinds of the family: inputs and outputs."""

from __future__ import annotations

from kit.engine.registry import REGISTRY, ModelOutput, StepKind
from kit.steps.checkpoint_transfer.maps import run_fit, run_oracle, run_texts
from kit.steps.checkpoint_transfer.params import (
    Evaluate,
    Fit,
    Oracle,
    Questions,
    Tabulate,
    Texts,
    Unlearn,
)
from kit.steps.checkpoint_transfer.unlearning import (
    run_evaluate,
    run_questions,
    run_tabulate,
    run_unlearn,
)

for _kind in (
    StepKind(
        name="checkpoint-transfer/texts",
        version=1,
        params=Texts,
        run=run_texts,
        inputs={"model": "model", "world": "step", "forget": "pin", "retain": "pin"},
        optional=frozenset({"world", "forget", "retain"}),
        outputs=("forget.jsonl", "retain.jsonl", "fit.jsonl", "held-out.jsonl"),
        doc="forget and retain text as token ids",
    ),
    StepKind(
        name="checkpoint-transfer/fit",
        version=1,
        params=Fit,
        run=run_fit,
        inputs={"teacher": "model", "student": "model", "texts": "step"},
        outputs=("maps",),
        doc="affine maps from an early checkpoint's states to the final model's",
    ),
    StepKind(
        name="checkpoint-transfer/oracle-patch",
        version=1,
        params=Oracle,
        run=run_oracle,
        inputs={
            "teacher": "model",
            "student": "model",
            "maps": "step",
            "questions": "step",
            "published": "step",
        },
        optional=frozenset({"questions", "published"}),
        outputs=("answers.json",),
        doc="what a model answers whose states are the targets themselves",
    ),
    StepKind(
        name="checkpoint-transfer/unlearn",
        version=1,
        params=Unlearn,
        run=run_unlearn,
        inputs={"teacher": "model", "student": "model", "maps": "step", "texts": "step"},
        optional=frozenset({"maps"}),
        outputs=("model", "training.json"),
        model=ModelOutput("model", inherits="student"),
        doc="unlearning by transfer of an early checkpoint's states",
    ),
    StepKind(
        name="checkpoint-transfer/questions",
        version=1,
        params=Questions,
        run=run_questions,
        inputs={"robust": "pin", "mmlu": "pin"},
        outputs=("questions",),
        environment=(),
        doc="the published question sets as prompts",
    ),
    StepKind(
        name="checkpoint-transfer/evaluate",
        version=1,
        params=Evaluate,
        run=run_evaluate,
        inputs={"model": "model", "questions": "step", "published": "step"},
        optional=frozenset({"questions", "published"}),
        outputs=("answers.json",),
        doc="multiple choice by log-likelihood, with every answer",
    ),
    StepKind(
        name="checkpoint-transfer/tabulate",
        version=1,
        params=Tabulate,
        run=run_tabulate,
        inputs={
            "unlearned": "steps",
            "trainings": "steps",
            "originals": "steps",
            "teachers": "steps",
            "oracles": "steps",
        },
        optional=frozenset({"originals", "teachers", "oracles"}),
        outputs=("results.json", "labels.jsonl"),
        environment=(),
        doc="all measurements as cells",
    ),
):
    REGISTRY.add(_kind)
