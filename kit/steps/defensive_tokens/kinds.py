"""The step kinds of the family: inputs, outputs, what is offered when one fails."""

from __future__ import annotations

from kit.engine.registry import REGISTRY, Sort, StepKind
from kit.steps.common import FORMATS
from kit.steps.defensive_tokens.adaptive import run_attack_table, run_gcg, run_published_texts
from kit.steps.defensive_tokens.alignment import run_align, run_transfer
from kit.steps.defensive_tokens.evaluation import evaluate_science, run_evaluate, run_tabulate
from kit.steps.defensive_tokens.files import SETS
from kit.steps.defensive_tokens.labels import run_self_label, run_training_data
from kit.steps.defensive_tokens.params import (
    Align,
    AttackTable,
    Evaluate,
    Gcg,
    PublishedTexts,
    SelfLabel,
    Tabulate,
    TrainingData,
    TrainPrefix,
    Transfer,
)
from kit.steps.defensive_tokens.remedies import (
    GENERATION_MEMORY,
    SEARCH_MEMORY,
    TRAINING_MEMORY,
    TRAINING_STEADIER,
)
from kit.steps.defensive_tokens.training import run_train_prefix

ATTACKED: dict[str, Sort] = {
    "model": "model",
    "evaluation": "pin",
    "attacks": "pin",
    "released": "pin",
    "trained": "step",
}
GENERATION = ("device", "dtype", "torch", "transformers", "vllm", "batch_invariant")

for _kind in (
    StepKind(
        name="defensive-tokens/align",
        version=1,
        params=Align,
        run=run_align,
        inputs={"source": "model", "target": "model"},
        outputs=("alignment.safetensors", "alignment.json"),
        canaries=("map-is-orthogonal", "map-is-unique"),
        doc="orthogonal Procrustes between two vocabularies",
    ),
    StepKind(
        name="defensive-tokens/transfer",
        version=2,
        params=Transfer,
        run=run_transfer,
        inputs={"source": "model", "target": "model", "released": "pin", "align": "step"},
        needs={"source": ("released_tokens_key",)},
        outputs=(SETS, "geometry.json"),
        doc="transferred prefix and its controls",
    ),
    StepKind(
        name="defensive-tokens/training-data",
        version=1,
        params=TrainingData,
        run=run_training_data,
        inputs={"pool": "pin", "attacks": "pin", "references": "pin"},
        optional=frozenset({"references"}),
        needs={"attacks": ("style",)},
        outputs=("items.jsonl", "samples.jsonl", "schedule.json", "summary.json"),
        canaries=("test-word-leak",),
        doc="mixture of clean and attacked samples, and the order in which it is consumed",
    ),
    StepKind(
        name="defensive-tokens/self-label",
        version=1,
        environment=GENERATION,
        lowers_memory=GENERATION_MEMORY,
        params=SelfLabel,
        run=run_self_label,
        inputs={"model": "model", "data": "step", "pool": "pin"},
        needs={"model": ("chat_format",)},
        science=lambda params: FORMATS,
        optional=frozenset({"data", "pool"}),
        # One of the two says what to label; the other must not move the key.
        unread=lambda params: frozenset({"data" if params.scope == "all" else "pool"}),
        outputs=("labels.jsonl", "summary.json"),
        canaries=("labels-are-answers",),
        doc="answers of the undefended model",
    ),
    StepKind(
        name="defensive-tokens/train-prefix",
        version=1,
        params=TrainPrefix,
        lowers_memory=TRAINING_MEMORY,
        steadies=TRAINING_STEADIER,
        run=run_train_prefix,
        inputs={"model": "model", "data": "step", "labels": "step", "start": "step"},
        needs={"model": ("chat_format",)},
        science=lambda params: FORMATS,
        optional=frozenset({"start"}),
        outputs=(SETS, "training.json"),
        canaries=("prompts-leave-room", "prefix-moved", "model-is-frozen"),
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
            "model": "model",
            "evaluation": "pin",
            "attacks": "pin",
            "released": "pin",
            "transferred": "step",
            "trained": "step",
            "control": "step",
        },
        optional=frozenset({"released", "transferred", "trained", "control"}),
        needs={"model": ("chat_format",), "attacks": ("style",)},
        science=evaluate_science,
        outputs=("responses.jsonl", "scores.json"),
        canaries=("attack-present", "prefix-in-place", "labels-differ-between-sets"),
        doc="attack success, refusal and accuracy of every token set of one model",
    ),
    StepKind(
        name="defensive-tokens/tabulate",
        version=3,
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
    StepKind(
        name="defensive-tokens/gcg",
        version=1,
        lowers_memory=SEARCH_MEMORY,
        params=Gcg,
        run=run_gcg,
        inputs=ATTACKED,
        optional=frozenset({"trained"}),
        outputs=("texts.jsonl", "scores.json"),
        canaries=(
            "attack-present",
            "text-tokenises-alike",
            "prefix-in-place",
            "kept-loss-never-rises",
            "search-moved",
        ),
        doc="a token search for a text that breaks a token set, blind to it or aware of it",
    ),
    StepKind(
        name="defensive-tokens/published-texts",
        version=1,
        environment=GENERATION,
        lowers_memory=GENERATION_MEMORY,
        params=PublishedTexts,
        run=run_published_texts,
        inputs=ATTACKED,
        optional=frozenset({"trained"}),
        outputs=("labels.json",),
        canaries=("attack-present",),
        doc="every published attack text against every token set",
    ),
    StepKind(
        name="defensive-tokens/attack-table",
        version=1,
        params=AttackTable,
        run=run_attack_table,
        inputs={"searches": "steps", "texts": "steps"},
        outputs=("results.json", "labels.jsonl"),
        environment=(),
        doc="searched and chosen attacks as cells and curves over the attacker's effort",
    ),
):
    REGISTRY.add(_kind)
