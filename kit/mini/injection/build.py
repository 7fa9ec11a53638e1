"""Build every shipped model again from its seed: ``kit mini build injection FOLDER``."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from kit.mini.injection.entry import measure
from kit.mini.injection.model import load_model, new_model, save_model
from kit.mini.injection.pretrain import NEWER, SOURCE, Recipe, train
from kit.mini.injection.record import passed, read_record, write_record
from kit.mini.injection.release import RELEASED_FILE, release, write_released
from kit.mini.record import Json
from kit.mini.trials import try_seeds


def build(root: Path, wanted: int, jobs: int, say: Callable[[str], None]) -> None:
    """Make ``wanted`` admitted pairs of source and newer version, and their released tokens.

    Folders of models that do not ship are removed, their numbers stay in the record.

    Args:
        root: Receives one folder a model, the record, the hashes and the tokens.
        wanted: Number of pairs.
        jobs: Seeds trained at the same time, one process and one thread each.
        say: Receives one line a finished seed.

    Raises:
        ValueError: ``root`` holds models of another recipe.
    """
    root.mkdir(parents=True, exist_ok=True)

    def save(record: Json) -> None:
        _remove_unshipped(root, record)
        write_record(root, record)

    try_seeds(
        read_record(root),
        wanted,
        attempt=partial(build_seed, root),
        passed=passed,
        save=save,
        jobs=jobs,
        say=say,
    )
    write_released(root / RELEASED_FILE.name, release(root))


def build_seed(root: Path, seed: int) -> Json:
    """Train, write and measure the source of a seed and, if it is admitted, its newer version."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source = _build_model(root, "source", seed, SOURCE)
    newer = _build_model(root, "newer", seed, NEWER) if source["admitted"] else None
    return {"seed": seed, "source": source, "newer": newer}


def train_model(root: Path, kind: str, seed: int, recipe: Recipe) -> tuple[Path, float]:
    """Train one model and write it, rounded; returns its folder and its last mean loss.

    Args:
        root: A newer version continues from the rounded ``source-<seed>`` in this folder.
        kind: ``"source"`` or ``"newer"``.
        seed: Of the initial weights and of the stream of examples.
        recipe: How to train.
    """
    losses: list[float] = []
    folder = root / f"{kind}-{seed}"
    model = new_model(seed) if kind == "source" else load_model(root / f"source-{seed}")
    train(model, recipe, f"{kind}-{seed}", lambda _, loss: losses.append(loss))
    save_model(model, folder)
    last = losses[-100:]
    return folder, sum(last) / len(last)


def _build_model(root: Path, kind: str, seed: int, recipe: Recipe) -> Json:
    started = time.perf_counter()
    folder, loss = train_model(root, kind, seed, recipe)
    seconds = time.perf_counter() - started
    # The rule is applied to what ships: rounded, written, and read back.
    numbers = measure(load_model(folder))
    return {
        "admitted": numbers.admitted,
        **asdict(numbers),
        "loss": round(loss, 4),
        "train_seconds": round(seconds, 1),
    }


def _remove_unshipped(root: Path, record: Json) -> None:
    for row in record["seeds"]:
        if row["status"] != "admitted":
            for kind in ("source", "newer"):
                shutil.rmtree(root / f"{kind}-{row['seed']}", ignore_errors=True)
