"""Ten thousand matrix cells: planned, checked, finished and exported in seconds, in little memory.

``benchmarks/measure_grid.py`` measures the same and more; here stands what must always hold.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.grid import fill, grid
from kit.engine.export.snakefile import jobs
from kit.engine.preflight import finished
from kit.engine.store import Store
from kit.results.plan import Plan

CELLS = 10_000
LIMIT_SECONDS, LIMIT_GB = 10, 1


@pytest.fixture(scope="module")
def plan() -> Plan:
    """The grid."""
    return grid(CELLS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> Path:
    """A folder with a kit home in which every step is finished."""
    made = tmp_path_factory.mktemp("grid")
    fill(Store(made / "home"), plan)
    return made


def test_every_cell_is_planned(plan: Plan) -> None:
    assert len(plan.instances) == 2 * CELLS + 1
    assert len({one.id for one in plan.instances}) == len({one.key for one in plan.instances})
    assert {one.params["seed"] for one in plan.instances if one.step == "train"} == set(
        range(CELLS)
    )
    for seed in (0, 4711, CELLS - 1):
        evaluate = plan.by_id[f"evaluate[cell=cell-{seed}]"]
        assert list(evaluate.upstream()) == [f"train[cell=cell-{seed}]"]
    assert len(list(plan.by_id["table"].upstream())) == CELLS


def test_the_check_finds_what_is_there_and_what_is_not(plan: Plan, folder: Path) -> None:
    store = Store(folder / "home")
    assert finished(plan, store) == set(plan.by_id)
    lost = plan.by_id["train[cell=cell-4711]"]
    record = store.path(lost.key) / "step.json"
    record.rename(folder / "aside")
    try:
        missing = set(plan.by_id) - finished(plan, store)
    finally:
        (folder / "aside").rename(record)
    assert missing == {lost.id, "evaluate[cell=cell-4711]", "table"}


def test_every_cell_is_exported(plan: Plan) -> None:
    made = jobs(plan)
    assert {step: len(found) for step, found in made.items()} == {
        "train": CELLS,
        "evaluate": CELLS,
        "table": 1,
    }
    ((table),) = made["table"].values()
    assert len(set(table["after"])) == CELLS


def test_it_takes_seconds_and_little_memory(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.measure_grid", "--one", str(CELLS), str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=Path(__file__).parents[2],
    )
    row = msgspec.json.decode(done.stdout.splitlines()[-1])
    for part in ("plan", "check", "run", "snakemake"):
        assert row[part]["cpu"] < LIMIT_SECONDS, row
    assert row["export_memory_gb"] < LIMIT_GB, row
    (run,) = (folder / "runs").iterdir()
    assert json.loads((run / "record.json").read_text())["status"] == "finished"
