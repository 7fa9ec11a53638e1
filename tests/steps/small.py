"""A one-pair, few-steps experiment that runs every DefensiveTokens step in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kit.steps  # noqa: F401 - registers the kinds
from kit.engine.registry import REGISTRY

STEP_KINDS = "defensive-tokens"


def manifest(**changes: Any) -> dict[str, Any]:
    """The experiment as plain data; ``changes`` replace parameters as ``step.param=value``."""
    training = {
        "lr": 0.1,
        "schedule": "constant",
        "steps": 6,
        "micro_batch": 8,
        "accumulation": 1,
        "layout": "before-bos",
        "seed": "${pair.seed}",
        "end_truncated": True,
        "label_tokens": "as-text",
    }
    values: dict[str, dict[str, Any]] = {
        "transfer": {"tokens": 5, "seed": "${pair.seed}", "sets": ["procrustes", "copy"]},
        "data": {"builder": "as-reported", "steps": 6, "batch": 8, "seed": "${pair.seed}"},
        "labels": {"max_new_tokens": 6, "empty_data": "empty-turn"},
        "adapt": {**training, "label": "adapt", "init": "transferred", "checkpoints": [2, 6]},
        "scratch": {**training, "label": "scratch", "init": "normal", "checkpoints": [6]},
        "evaluate": {
            "layout": "before-bos",
            "attacks": ["ignore", "completion", "ignore_completion"],
            "max_new_tokens": 6,
            "seed": 42,
            "accuracy": True,
            "refusal_rule": "as-reported",
        },
        "table": {"native": "native", "loss_window": 2},
    }
    for name, value in changes.items():
        step, parameter = name.split(".")
        values[step][parameter] = value
    pin = {"model": {"pin": "${pair.target}"}}
    source = {"source": {"pin": "${pair.source}"}, "target": {"pin": "${pair.target}"}}
    released = {"released": {"pin": "mini-defensive-tokens"}}
    attacks = {"attacks": {"pin": "mini-attacks"}}
    inputs: dict[str, tuple[str, dict[str, Any]]] = {
        "align": ("align", source),
        "transfer": ("transfer", {**source, **released, "align": {"step": "align"}}),
        "data": ("training-data", {"pool": {"pin": "mini-alpaca"}, **attacks}),
        "labels": (
            "self-label",
            {**pin, "data": {"step": "data"}, "pool": {"pin": "mini-alpaca"}},
        ),
        "adapt": (
            "train-prefix",
            {
                **pin,
                "data": {"step": "data"},
                "labels": {"step": "labels"},
                "start": {"step": "transfer"},
            },
        ),
        "scratch": (
            "train-prefix",
            {**pin, "data": {"step": "data"}, "labels": {"step": "labels"}},
        ),
        "evaluate": (
            "evaluate",
            {
                **pin,
                **attacks,
                **released,
                "evaluation": {"pin": "mini-alpaca-farm"},
                "transferred": {"step": "transfer"},
                "trained": {"step": "adapt"},
                "control": {"step": "scratch"},
            },
        ),
        "table": (
            "tabulate",
            {
                "evaluations": {"step": "evaluate"},
                "alignments": {"step": "align"},
                "transfers": {"step": "transfer"},
                "trainings": {"step": "adapt"},
                "controls": {"step": "scratch"},
            },
        ),
    }
    return {
        "schema_version": 1,
        "id": "small",
        "family": "defensive_tokens",
        "version": "1-A",
        "title": "small",
        "summary": "one pair, six steps",
        "variant": "as-reported",
        "documents": [{"id": "none", "title": "none", "cite": "none"}],
        "steps": [
            {
                "id": id,
                "kind": f"{STEP_KINDS}/{kind}",
                "version": REGISTRY.get(f"{STEP_KINDS}/{kind}").version,
                "each": [] if id == "table" else ["pair"],
                "inputs": given,
            }
            for id, (kind, given) in inputs.items()
        ],
        "results": "table",
        "axes": {"pair": "replicate"},
        "profiles": {
            "mini": {
                "summary": "mini",
                "matrix": {
                    "pair": [
                        {
                            "id": "other-5",
                            "group": "other-seed",
                            "source": "mini-source-5",
                            "target": "mini-source-6",
                            "seed": 5,
                        }
                    ]
                },
                "set": values,
            }
        },
    }


def write(folder: Path, **changes: Any) -> Path:
    """The experiment as a JSON manifest file."""
    import json

    path = folder / "small.json"
    path.write_text(json.dumps(manifest(**changes)), encoding="utf-8")
    return path
