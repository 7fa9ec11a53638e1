"""A whole unlearning of tiny models, for tests of the loop."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from transformers import PreTrainedModel

from kit.methods.checkpoint_transfer.affine import AffineMap
from kit.methods.checkpoint_transfer.fitting import fit_maps
from kit.methods.checkpoint_transfer.pairs import Pairs
from kit.methods.checkpoint_transfer.presets import make_recipe
from kit.methods.checkpoint_transfer.recipe import Recipe
from kit.methods.checkpoint_transfer.student import make_student, optimizer_spec
from kit.methods.checkpoint_transfer.targets import ForgetTargets, RetainReference
from kit.methods.checkpoint_transfer.unlearn import UnlearnRun, unlearn
from kit.train.single_process import SingleProcess
from tests.methods.checkpoint_transfer.tiny import VOCABULARY, batch, model

EXAMPLES = 16


def recipe(preset: str = "corrected", **settings: Any) -> Recipe:
    """Sixteen pairs, batches of eight in micro-batches of two; layers 1 and 2 of four."""
    values: dict[str, Any] = {
        "retain_coef": 2.0,
        "remove_coef": 5.0,
        "layers": (1, 2),
        "examples": EXAMPLES,
        "micro_batch": 2,
        "global_batch": 8,
        "lora_rank": 4,
        "lora_alpha": 4.0,
        "lora_dropout": 0.0,
        "learning_rate": 1e-2,
    }
    return make_recipe(preset, **{**values, **settings})


def pairs(seed: int = 0, examples: int = EXAMPLES) -> Pairs:
    """Random texts of uneven length."""
    rng = Random(seed)

    def text() -> list[int]:
        return [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(3, 9))]

    return Pairs([text() for _ in range(examples)], [text() for _ in range(examples)], pad_id=0)


@dataclass
class Setting:
    """Models and maps of a run."""

    teacher: PreTrainedModel
    original: PreTrainedModel
    maps: dict[int, AffineMap]


def setting(kind: str = "llama") -> Setting:
    """A teacher, a final model, and maps of all their blocks."""
    teacher, original = model(0, kind), model(1, kind)
    fitted = fit_maps(
        teacher, original, [batch(s, rows=8) for s in range(6)], [batch(9)], range(-1, 4)
    )
    return Setting(teacher, original, fitted.maps)


def run(given: Setting, wanted: Recipe, **options: Any) -> tuple[Any, UnlearnRun, SingleProcess]:
    """The trained model, what was measured, and the engine."""
    torch.manual_seed(7)
    student = make_student(copy.deepcopy(given.original), wanted, seed=3)
    engine = SingleProcess(student, optimizer_spec(wanted))
    maps = given.maps if wanted.affine else None
    targets = options.pop("targets", None) or ForgetTargets(given.teacher, maps, wanted)
    reference = options.pop("reference", None) or RetainReference(given.original)
    done = unlearn(engine, wanted, pairs(), targets, reference, seed=5, **options)
    return student, done, engine
