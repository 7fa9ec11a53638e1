"""Settings that cannot be meant are refused in a sentence, each by itself.

One wrong value a line; the same call with the value put right goes through, so that a line fails
for its own reason.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.evals.accuracy import exact_labels
from kit.evals.injection import injection_labels
from kit.evals.refusal import refusal
from kit.methods.checkpoint_transfer.counting import coefficients
from kit.methods.checkpoint_transfer.recipe import Recipe
from kit.methods.checkpoint_transfer.texts import read_documents
from kit.methods.defensive_tokens.adaptive.gcg import SearchSettings
from kit.methods.defensive_tokens.self_label import data_turn
from kit.methods.defensive_tokens.transfer import norm_rescaled
from kit.methods.tar.dpo import dpo_loss
from kit.methods.tar.label_study import LabelTraining
from kit.methods.tar.refusal_safeguards import RefusalSafeguard
from kit.methods.tar.scores import per_position
from kit.mini.facts.model import Shape
from kit.tampering.attack import FORGET, Attack, Phase
from kit.tampering.worst_case import Bound
from kit.train.engines import engine_factory
from kit.train.loop import FineTuning
from kit.train.losses import token_weights
from kit.train.optimizers import SGD, AdamW, ScheduleFreeAdamW
from kit.train.schedules import Schedule
from kit.train.streams import Stream

ADAMW = AdamW(1e-3, 0.0)
COEFFICIENTS = {"micro_batch": 0, "retain": 1.0, "remove": 1.0, "ramp": 1}
SEARCH = {"steps": 2, "candidates": 2, "top_k": 2, "measure_at": (0, 2)}
LABELS = {"objective": "sft", "steps": 1, "learning_rate": 1e-3, "batch": 2}
SAFEGUARD = {"method": "rr", "steps": 1, "learning_rate": 1e-3, "batch": 1}
ATTACK = {"name": "a", "optimizer": ADAMW, "steps": 4, "batch": 2}
RECIPE = {"retain_coef": 1.0, "remove_coef": 1.0}
STREAM = {"name": "s", "items": [1, 2], "size": 1, "seed": 0}
LINES: list[tuple[Callable[..., Any], dict[str, Any], dict[str, Any], str]] = [
    (exact_labels, {"responses": ["a"], "references": ["a"]}, {"references": []}, "0 references"),
    (injection_labels, {"responses": ["w"], "word": "w"}, {"rule": "x"}, "unknown injection rule"),
    (refusal, {"response": "no", "rule": "as-reported"}, {"rule": "x"}, "unknown refusal rule"),
    *(
        (coefficients, COEFFICIENTS, wrong, "are not negative")
        for wrong in ({"micro_batch": -1}, {"retain": -1.0}, {"remove": -1.0}, {"ramp": 0})
    ),
    (Recipe, RECIPE, {"retain_coef": -0.1}, "is not negative"),
    (Recipe, RECIPE, {"remove_coef": 0.0}, "is not negative"),
    *((Recipe, RECIPE, {"layers": of}, "rising order") for of in ((), (2, 1), (1, 1), (-1, 2))),
    (Recipe, RECIPE, {"affine": 1}, "write true or false"),
    (Recipe, RECIPE, {"lora_rank": 0}, "LoRA rank"),
    *((SearchSettings, SEARCH, {name: 0}, "at least 1") for name in ("candidates", "top_k")),
    (SearchSettings, SEARCH, {"measure_at": (2, 0)}, "must rise"),
    (SearchSettings, SEARCH, {"measure_at": (-1, 2)}, "must rise"),
    (data_turn, {"text": "", "mode": "no-turn"}, {"mode": "x"}, "unknown data-turn mode"),
    (dpo_loss, {"margin": torch.zeros(2), "beta": 0.1}, {"beta": 0.0}, "needs a positive"),
    (LabelTraining, LABELS, {"objective": "x"}, "unknown objective"),
    (LabelTraining, LABELS, {"batch": 3}, "is to be benign"),
    (LabelTraining, LABELS, {"batch": 0}, "is to be benign"),
    (RefusalSafeguard, SAFEGUARD, {"method": "x"}, "unknown safeguard"),
    (per_position, {"part": torch.abs, "tensors": [torch.zeros(2)]}, {"chunk": 0}, "holds none"),
    *((Shape, {}, {name: 0}, "at least 1") for name in ("width", "layers", "feed_forward")),
    (Shape, {}, {"heads": 3}, "do not fit"),
    (Shape, {}, {"architecture": "x"}, "unknown architecture"),
    (Attack, ATTACK, {"steps": 0}, "0 steps"),
    (Attack, ATTACK, {"batch": 0}, "of 0 examples"),
    (Attack, ATTACK, {"length": 1}, "nothing is predicted"),
    (Attack, ATTACK, {"phases": (Phase(FORGET, share=0.5),)}, "do not sum to 1"),
    (Attack, ATTACK, {"phases": ()}, "do not sum to 1"),
    (Attack, ATTACK, {"weights": "x"}, "unknown weights"),
    (
        Attack,
        ATTACK | {"optimizer": ScheduleFreeAdamW(1e-3, 0.0)},
        {"schedule": Schedule("linear")},
        "takes no schedule",
    ),
    (Attack, ATTACK, {"schedule": Schedule("constant", warmup=4)}, "does not fit a run"),
    (Attack(**ATTACK).data_of, {"step": 3}, {"step": 4}, "has no step 4"),
    (Attack(**ATTACK).data_of, {"step": 0}, {"step": -1}, "has no step -1"),
    (Bound, {"least": 1.0}, {"least": None}, "one of the two"),
    (Bound, {"least": 1.0}, {"most": 1.0}, "one of the two"),
    (engine_factory, {"name": "single-process", "device": "cpu"}, {"name": "x"}, "unknown engine"),
    (FineTuning, {"steps": 2}, {"measure_at": (3,)}, "does not fit"),
    (FineTuning, {"steps": 2}, {"measure_at": (-1,)}, "does not fit"),
    (FineTuning, {"steps": 2}, {"steps": -1}, "does not fit"),
    (FineTuning, {"steps": 2}, {"diverged": "x"}, "diverged is"),
    (
        token_weights,
        {"label_counts": [1], "micro_batch": 1},
        {"normalisation": "x"},
        "unknown norm",
    ),
    (SGD, {"learning_rate": 0.1, "weight_decay": 0.0}, {"decay": "x"}, "decay is"),
    (SGD, {"learning_rate": 0.1, "weight_decay": 0.0}, {"learning_rate": -0.1}, "below 0"),
    (Schedule, {}, {"name": "x"}, "unknown schedule"),
    *((Schedule, {}, wrong, "needs warmup") for wrong in ({"warmup": -1}, {"growth": 0})),
    *((Schedule, {}, {"floor": floor}, "a floor from 0 to 1") for floor in (-0.1, 1.1)),
    (Schedule, {}, {"period": 2}, "with a period"),
    (Schedule, {"name": "restarts", "period": 2}, {"period": 0}, "with a period"),
    (Stream, STREAM, {"size": 0}, "batches of 0"),
    (Stream, STREAM, {"tail": "x"}, "tail is"),
    (Stream, STREAM, {"items": []}, "0 items"),
    (
        partial(norm_rescaled, torch.ones(2, 3)),
        {"native": torch.ones(2, 3)},
        {"native": torch.ones(1, 3)},
        "differ",
    ),
]


@pytest.mark.parametrize(("function", "right", "wrong", "said"), LINES)
def test_one_wrong_value_is_refused(
    function: Callable[..., Any], right: dict[str, Any], wrong: dict[str, Any], said: str
) -> None:
    function(**right)
    with pytest.raises(ValueError, match=said):
        function(**(right | wrong))


def test_no_files_are_no_documents(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no files to read"):
        read_documents([], ["text"])
