"""A toy plan through real Snakemake: the same results, nothing lost, nothing done twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.engine.export.snakefile import jobs, write_snakemake
from kit.engine.session import Options, Session
from kit.engine.store import Store
from kit.errors import Preflight
from kit.manifest.types import Resources
from kit.results.plan import Plan, read_plan
from tests.engine.conftest import ToyPins, manifest, plan_of, relabelled
from tests.engine.export.tools import kit_program, tool

NASTY = ["plain", "$(>evil)", "a'b\"c", "x/../y", "{wildcards}", ";exit", "ä", "-n"]
"""Labels of an edited plan may be all this; a label that is a command must stay a label."""


def nasty_plan(labels: list[str]) -> Plan:
    profile = {
        "summary": "s",
        "matrix": {"cell": [{"id": f"n{n}", "seed": n} for n in range(len(labels))]},
        "set": {"make": {"seed": "${cell.seed}", "size": 100}},
    }
    steps = [
        {"id": "make", "kind": "toy/make", "version": 2, "each": ["cell"]},
        {
            "id": "import",  # a word of Python
            "kind": "toy/mix",
            "version": 1,
            "each": ["cell"],
            "inputs": {"data": {"step": "make"}},
        },
        {"id": "all", "kind": "toy/table", "version": 1, "inputs": {"numbers": {"step": "import"}}},
    ]
    made = plan_of(manifest(steps=steps, results="all", profiles={"mini": profile}))
    return relabelled(made, labels)


def export(plan: Plan, folder: Path) -> Path:
    program = kit_program(folder)
    where = folder / "export it"  # with a blank
    home, runs = folder / "home", folder / "runs"
    write_snakemake(plan, where, home=home, kit=str(program), runs=runs)
    return where


def snakemake(
    where: Path, *arguments: str, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "KIT_HOME"}
    environment["KIT_PROGRESS"] = "json"  # must not get into run.txt
    environment["XDG_CACHE_HOME"] = str(where / "cache")
    return subprocess.run(
        [tool("snakemake"), "--cores", "2", *arguments],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def results(where: Path) -> Path:
    return Path((where / "run.txt").read_text().strip()) / "results.json"


def started(done: subprocess.CompletedProcess[str]) -> int:
    """Jobs that Snakemake began, or would begin: a dry run tells of them on the other stream."""
    return (done.stdout + done.stderr).count("\n    jobid: ")


def test_jobs_are_the_plans() -> None:
    plan = plan_of()
    made = jobs(plan)
    assert {step: len(found) for step, found in made.items()} == {"make": 3, "mix": 3, "table": 1}
    files = {f"finished/{step}/{name}" for step, found in made.items() for name in found}
    for found in made.values():
        for one in found.values():
            instance = plan.by_id[one["instance"]]
            assert len(one["after"]) == len(list(instance.upstream()))
            assert files.issuperset(one["after"])
    ((table),) = made["table"].values()
    assert sorted(table["after"]) == sorted(f for f in files if "/mix/" in f)
    assert (table["gpu"], table["mem_mb"], table["threads"]) == (0, 1280, 1)


def test_equal_keys_are_one_job() -> None:
    profile = {"summary": "s", "matrix": {"seed": [0, 1]}, "set": {"make": {"seed": 7}}}
    plan = plan_of(manifest(profiles={"mini": profile}))
    made = jobs(plan)
    assert {step: len(found) for step, found in made.items()} == {"make": 1, "mix": 1, "table": 1}
    (table,) = made["table"].values()
    (mix,) = made["mix"]
    assert table["after"] == [f"finished/mix/{mix}"]


def test_gpus_are_asked_for() -> None:
    plan = plan_of()
    needs = Resources(gpus=2, memory_gb=64, minutes=30)
    plan = msgspec.structs.replace(
        plan, instances=[msgspec.structs.replace(one, resources=needs) for one in plan.instances]
    )
    one = next(iter(jobs(plan)["make"].values()))
    assert (one["gpu"], one["mem_mb"], one["runtime"], one["threads"]) == (2, 65792, 70, 8)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((Preflight, Exception), match="file"):
        export(plan_of(), tmp_path / "file")


@pytest.mark.slow
def test_real_snakemake_gives_the_run(tmp_path: Path) -> None:
    tool("snakemake")
    plan = nasty_plan(NASTY)
    where = export(plan, tmp_path)
    assert read_plan(where / "plan.json") == plan
    done = snakemake(where)
    assert done.returncode == 0, done.stderr
    assert started(done) == 2 * len(NASTY) + 2
    assert not list(tmp_path.rglob("evil"))
    options = Options(jobs=2, runs_dir=tmp_path / "other-runs")
    other = Session(
        plan, home=tmp_path / "other", pins=ToyPins(tmp_path), options=options, argv=[]
    ).run()
    assert results(where).read_bytes() == (other / "results.json").read_bytes()
    mine = json.loads((results(where).parent / "record.json").read_text())["steps"]
    theirs = json.loads((other / "record.json").read_text())["steps"]
    for id, step in theirs.items():
        assert mine[id]["key"] == step["key"]
        assert mine[id]["outputs"] == {**step["outputs"], **_canaries(mine[id])}
    assert started(snakemake(where)) == 0


def _canaries(step: dict[str, Any]) -> dict[str, Any]:
    """The file that tells of the run, which no key or digest covers."""
    return {k: v for k, v in step["outputs"].items() if k == "canaries.json"}


Damage = Callable[[Store, Plan, Path], None]


def gone(store: Store, plan: Plan, where: Path) -> None:
    """A finished step vanishes from the store; its link is left."""
    shutil.rmtree(store.path(plan.by_id["import[cell=b]"].key))


def other_store(store: Store, plan: Plan, where: Path) -> None:
    """The whole store is gone, as on another machine."""
    shutil.rmtree(store.home)


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "again"), [(gone, 3), (other_store, 6)])
def test_what_is_gone_is_done_again(tmp_path: Path, damage: Damage, again: int) -> None:
    tool("snakemake")
    plan = nasty_plan(["a", "b"])
    where, store = export(plan, tmp_path), Store(tmp_path / "home")
    assert snakemake(where).returncode == 0
    run = results(where).parent
    before = results(where).read_bytes()
    damage(store, plan, where)
    assert started(snakemake(where)) == 0  # the run is whole, whatever became of the store
    shutil.rmtree(run)
    done = snakemake(where)
    assert done.returncode == 0, done.stderr
    assert started(done) == again  # with the last rule
    assert all(store.look(one.key).entry for one in plan.instances)
    assert results(where).read_bytes() == before


@pytest.mark.slow
def test_a_failing_step_stops_it_and_the_rest_is_kept(tmp_path: Path) -> None:
    tool("snakemake")
    flag = tmp_path / "flag"
    steps = [
        {"id": "f", "kind": "toy/fail", "version": 1},
        {"id": "t", "kind": "toy/table", "version": 1, "inputs": {"numbers": {"step": "f"}}},
    ]
    profile = {"summary": "s", "set": {"f": {"how": "value", "flag": str(flag)}}}
    plan = plan_of(manifest(steps=steps, results="t", profiles={"mini": profile}))
    where = export(plan, tmp_path)
    failed = snakemake(where)
    assert failed.returncode == 1
    assert "the rank must be positive" in failed.stderr
    assert not (where / "run.txt").exists()
    done = snakemake(where)
    assert done.returncode == 0, done.stderr
    assert started(done) == 3
