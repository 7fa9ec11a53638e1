"""Build every shipped model again from its seed: ``kit mini build FOLDER``."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict
from itertools import count
from pathlib import Path

from kit.mini.entry import measure
from kit.mini.model import load_model, new_model, save_model
from kit.mini.pretrain import NEWER, SOURCE, Recipe, train
from kit.mini.record import WANTED, Json, judge, read_record, write_record


def build(
    root: Path, wanted: int = WANTED, jobs: int = 1, say: Callable[[str], None] = print
) -> Json:
    """Try seeds 0, 1, 2, ... until ``wanted`` pairs of source and newer version are admitted.

    A build that was stopped continues: seeds in the record are not tried again. Folders of
    models that do not ship are removed, their numbers stay in the record.

    Args:
        root: Receives one folder a model, the record and the hashes.
        wanted: Number of pairs.
        jobs: Seeds trained at the same time, one process and one thread each.
        say: Receives one line a finished seed.

    Returns:
        The record as written.

    Raises:
        ValueError: ``root`` holds models of another recipe.
    """
    root.mkdir(parents=True, exist_ok=True)
    record = read_record(root) | {"wanted": wanted}
    seeds = [row["seed"] for row in record["seeds"]]
    untried = (seed for seed in count() if seed not in seeds)
    running: set[Future[Json]] = set()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        while True:
            admitted = sum(row["status"] == "admitted" for row in record["seeds"])
            while admitted < wanted and len(running) < jobs:
                running.add(pool.submit(build_seed, root, next(untried)))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            rows = [*record["seeds"], *(future.result() for future in done)]
            record["seeds"] = judge(rows, wanted)
            _remove_unshipped(root, record)
            write_record(root, record)
            for future in done:
                say(f"tried seed {future.result()['seed']}")
    return record


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
