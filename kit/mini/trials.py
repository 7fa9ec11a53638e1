"""The loop that both worlds share: try seeds in order until enough pass the entry rule."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import count

from kit.mini.record import Json, judge


def try_seeds(
    record: Json,
    wanted: int,
    *,
    attempt: Callable[[int], Json],
    passed: Callable[[Json], bool],
    save: Callable[[Json], None],
    jobs: int = 1,
    say: Callable[[str], None] = print,
) -> Json:
    """Try seeds 0, 1, 2, ... until ``wanted`` of them pass.

    A build that was stopped continues: seeds of the record are not tried again.

    Args:
        record: What is known so far (:func:`kit.mini.record.read_record`).
        wanted: Number of seeds to admit.
        attempt: Trains and measures a seed; runs in a process of its own, so it must be
            importable, and returns the seed's row.
        passed: Whether a row passes.
        save: Receives the judged record after every finished seed.
        jobs: Seeds tried at the same time.
        say: Receives a line for every finished seed.

    Returns:
        The record as last saved.
    """
    record = record | {"wanted": wanted}
    tried = {row["seed"] for row in record["seeds"]}
    untried = (seed for seed in count() if seed not in tried)
    running: set[Future[Json]] = set()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        while True:
            admitted = sum(row["status"] == "admitted" for row in record["seeds"])
            while admitted < wanted and len(running) < jobs:
                running.add(pool.submit(attempt, next(untried)))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            rows = [future.result() for future in done]
            record["seeds"] = judge([*record["seeds"], *rows], wanted, passed)
            save(record)
            for row in rows:
                say(f"tried seed {row['seed']}")
    return record
