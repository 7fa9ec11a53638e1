"""The build record of this world: ``kit mini build facts FOLDER``.

No weights ship: experiments pretrain within their run. The record says what the recipe gives on
the first seeds, and how long it takes.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from kit.mini import record
from kit.mini.facts import files, measure
from kit.mini.facts.model import Shape, new_model
from kit.mini.facts.pretrain import Recipe, Rows, pretrain, rows_of
from kit.mini.facts.questions import Question
from kit.mini.facts.world import make_world
from kit.mini.record import Json
from kit.mini.trials import try_seeds

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WANTED = 5
RECORD_FILE = Path(__file__).resolve().parent / "record.json"
FIT_TEXTS = 2000
"""Sentences that the oracle's maps are fitted on."""


def build(root: Path, wanted: int, jobs: int, say: Callable[[str], None]) -> None:
    """Pretrain and measure seeds until ``wanted`` pass, and write their record.

    Args:
        root: Receives ``record.json``; no weights are kept.
        wanted: Number of seeds to admit.
        jobs: Seeds at the same time, one process and one thread each.
        say: Receives a line for every finished seed.

    Raises:
        ValueError: ``root`` holds the record of another recipe.
    """
    path = root / RECORD_FILE.name
    try_seeds(
        record.read_record(path, recipe(), WANTED),
        wanted,
        attempt=build_seed,
        passed=passed,
        save=partial(record.write_json, path),
        jobs=jobs,
        say=say,
    )


def recipe() -> Json:
    """Everything that decides the numbers, as plain JSON values."""
    return record.plain(
        {
            "entry_rule": {
                "least_known": measure.LEAST_KNOWN,
                "most_guessed": measure.MOST_GUESSED,
                "least_retained": measure.LEAST_RETAINED,
            },
            "shape": asdict(Shape()),
            "pretraining": asdict(Recipe()),
        }
    )


def build_seed(seed: int) -> Json:
    """Pretrain the model and the control of a seed, and measure them at every hundred steps."""
    import torch

    torch.set_num_threads(1)
    world = make_world(seed)
    texts = files.texts(world)
    rows = rows_of([*texts["retain"], *texts["mention"], *texts["forget"]])
    sets = measure.question_sets(world)
    chosen = Recipe()
    steps = sorted({*range(0, chosen.steps, 100), chosen.introduced, chosen.steps})

    model, control = _Trained(sets), _Trained(sets)
    model.train(rows, chosen, seed, steps)
    control.train(rows, replace(chosen, forget=False), seed, [chosen.steps])
    retained = [row for group in rows_of(texts["retain"]).values() for row in group]
    oracle = measure.oracle(
        model.kept[chosen.steps],
        model.kept[chosen.introduced],
        world,
        Random(seed).sample(retained, FIT_TEXTS),
    )
    return {
        "seed": seed,
        "curve": {str(step): shares for step, shares in model.curve.items()},
        "control": control.curve[chosen.steps],
        "oracle": oracle,
        "pretraining_cpu_seconds": round(model.seconds, 1),
    }


def passed(row: Json) -> bool:
    """The entry rule, on a row of the record."""
    return measure.admitted(final(row), source(row), row["control"])


def final(row: Json) -> measure.Shares:
    """What the final model of a row knows."""
    shares: measure.Shares = row["curve"][str(Recipe().steps)]
    return shares


def source(row: Json) -> measure.Shares:
    """What the checkpoint of a row knows that never saw a fact about a compound."""
    shares: measure.Shares = row["curve"][str(Recipe().introduced)]
    return shares


class _Trained:
    """A training with what was measured on the way.

    Attributes:
        kept: Steps done -> a copy of the model, at the introduction and at the end.
        curve: Steps done -> shares of the questions answered right.
        seconds: Seconds of processor time, measuring left out.
    """

    def __init__(self, sets: dict[str, list[Question]]) -> None:
        self.sets = sets
        self.kept: dict[int, PreTrainedModel] = {}
        self.curve: dict[int, measure.Shares] = {}
        self.seconds = 0.0

    def train(self, rows: Rows, recipe: Recipe, seed: int, steps: list[int]) -> None:
        """Train the default shape, measuring at the given steps."""
        model = new_model(Shape(), seed)

        def checkpoint(step: int) -> None:
            began = time.process_time()
            state: Any = copy.deepcopy(model)
            state.eval()
            self.curve[step] = measure.measure(state, self.sets)
            if step in (recipe.introduced, recipe.steps):
                self.kept[step] = state
            self.seconds -= time.process_time() - began

        began = time.process_time()
        pretrain(model, rows, recipe, seed, checkpoints=steps, on_checkpoint=checkpoint)
        self.seconds += time.process_time() - began
