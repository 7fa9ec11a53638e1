"""Records, findings, machines and the store's inventory at their borders."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kit.engine import hardware, inventory
from kit.engine import record as record_module
from kit.engine.environment import Machine
from kit.engine.events import EventLog, event, read_events
from kit.engine.hardware import Gpu
from kit.engine.inventory import inventory as holdings
from kit.engine.inventory import remove
from kit.engine.launch import lines, nodes_here
from kit.engine.params import _places
from kit.engine.record import _git, begin, code_state
from kit.engine.rehearse import StepFinding, findings, plan_error
from kit.engine.store import Store
from kit.errors import UsageError
from kit.manifest.types import Resources
from kit.results.plan import Plan
from kit.results.record import StepRecord
from tests.engine.conftest import plan_of
from tests.engine.test_batch import shared
from tests.engine.test_record import entry, record_of

# What rehearsals find.


def finding(**fields: Any) -> StepFinding:
    plain = {
        "step": "s", "instances": 1, "planned_minutes": 2.0, "measured_minutes": 1.0,
        "planned_memory_gb": 4.0, "peak_memory_gb": 3.0, "planned_gpu_memory_gb": 6.0,
        "peak_gpu_memory_gb": 5.0,
    }  # fmt: skip
    return StepFinding(**plain | fields)


@pytest.mark.parametrize(
    ("fields", "over"),
    [
        ({}, []),
        ({"measured_minutes": None}, []),
        ({"measured_minutes": 2.0, "peak_memory_gb": 4.0, "peak_gpu_memory_gb": 6.0}, []),
        ({"measured_minutes": 2.1}, ["time"]),
        ({"peak_memory_gb": 4.1}, ["memory"]),
        ({"peak_gpu_memory_gb": 6.1}, ["GPU memory"]),
    ],
)
def test_in_what_a_step_took_more_than_planned(fields: dict[str, Any], over: list[str]) -> None:
    assert finding(**fields).over == over


def measured(**steps: tuple[float, float, float] | None) -> tuple[Plan, Any]:
    """Each step on a GPU of 10 GB for a minute; seconds, memory and GPU memory it took."""
    needs = Resources(gpus=1, gpu_memory_gb=10.0, minutes=1.0)
    plan = plan_of()
    plan = msgspec.structs.replace(
        plan,
        instances=[
            msgspec.structs.replace(one, step=one.id[:4] + one.id[-2:-1], resources=needs)
            for one in plan.instances[:3]
        ],
    )
    made = record_of(plan)
    for one in plan.instances:
        took = steps[one.step]
        step = StepRecord(key=one.key, state="run")
        if took is not None:
            step.started = "2026-01-01T00:00:00Z"
            step.seconds, step.peak_memory_gb, step.peak_gpu_memory_gb = took
        made.steps[one.id] = step
    return plan, made


def test_the_longest_and_largest_of_a_steps_instances() -> None:
    plan, made = measured(make0=(30, 1, 5), make1=(90, 3, 2), make2=(60, 2, 8))
    same = [msgspec.structs.replace(one, step="make") for one in plan.instances]
    (found,) = findings(msgspec.structs.replace(plan, instances=same), made)
    assert (found.measured_minutes, found.peak_memory_gb, found.peak_gpu_memory_gb) == (1.5, 3, 8)


def test_the_worst_plan_is_named_on_either_side() -> None:
    plan, made = measured(make0=(30, 1, 8), make1=(30, 1, 40), make2=(60, 1, 0))
    found = plan_error(plan, made)
    assert (found.gpu_memory, found.gpu_memory_step) == (0.75, "make1")  # 10 of 40
    assert found.minutes == 0.5  # three minutes planned, two measured
    plan, made = measured(make0=(60, 1, 4), make1=(300, 1, 40), make2=(60, 1, 0))
    found = plan_error(plan, made)
    assert (found.gpu_memory, found.gpu_memory_step) == (1.5, "make0")
    assert found.minutes == round(4 / 7, 4)


@pytest.mark.parametrize(
    ("second", "fraction", "known"),
    [((60, 1, 5), None, True), (None, None, False), ((60, 1, 5), 0.5, False)],
)
def test_minutes_of_a_whole_rehearsal_alone(
    second: tuple[float, float, float] | None, fraction: float | None, known: bool
) -> None:
    plan, made = measured(make0=(60, 1, 5), make1=second, make2=(60, 1, 5))
    assert (plan_error(plan, made, fraction).minutes is not None) is known
    plan, made = measured(make0=(0, 1, 5), make1=(0, 1, 5), make2=(0, 1, 5))
    assert plan_error(plan, made).minutes is None  # a share of nothing


# Records.


def test_versions_of_a_record_are_in_order_and_those_that_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        record_module, "library_version", lambda name: None if name == "vllm" else "1"
    )
    made = begin(plan_of(), argv=[], environ={}, started="", options={})
    assert list(made.versions) == sorted(made.versions)
    assert "vllm" not in made.versions
    assert {"torch", "click"} <= made.versions.keys()


def test_git_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert _git(tmp_path, "rev-parse", "HEAD") is None
    commit, dirty = "a" * 40, None
    for built, wanted in (
        ("", (None, None)),
        (commit, (commit, False)),
        (f"{commit}-dirty", (commit, True)),
        (commit[1:], (None, dirty)),
    ):
        monkeypatch.setenv("KIT_COMMIT", built)
        assert code_state(tmp_path) == wanted
    said = _git(tmp_path, "--version")
    assert said is not None
    assert said.startswith("git version")


# Machines.


def test_several_architectures_are_named_in_order() -> None:
    cards = [
        Gpu(index=str(n), name="x", arch=f"sm_{arch}", memory_gb=1.0)
        for n, arch in enumerate((90, 70, 86, 75, 80, 89, 90))
    ]
    assert Machine(gpus=cards).gpu_arch == "sm_70+sm_75+sm_80+sm_86+sm_89+sm_90"
    assert Machine().gpu_arch == "unknown"


@pytest.mark.parametrize(
    ("machine", "limit", "gb"),
    [(8 << 30, "max", 8.0), (8 << 30, "1234567890", 1.1), (1 << 30, "4294967296", 1.0)],
)
def test_memory_in_tenths(
    monkeypatch: pytest.MonkeyPatch, machine: int, limit: str, gb: float
) -> None:
    monkeypatch.setattr(hardware.psutil, "virtual_memory", lambda: SimpleNamespace(total=machine))
    monkeypatch.setattr(hardware, "_read", lambda path: limit + "\n")
    assert hardware.memory_gb() == gb


# Many GPUs.


def alone(gpus: int, **changes: Any) -> Any:
    plan = shared(gpus=8)
    step = plan.instances[0]
    needs = msgspec.structs.replace(step.resources, gpus=gpus)
    return plan, msgspec.structs.replace(step, resources=needs, launch="torchrun", **changes)


@pytest.mark.parametrize(
    ("gpus", "given", "nodes"), [(1, None, 1), (8, None, 1), (12, None, 2), (16, None, 2),
                                 (8, 2, 2), (24, None, 3), (72, None, 9)],
)  # fmt: skip
@pytest.mark.parametrize("how", ["slurm", "torchrun"])
def test_lines_of_as_many_nodes_as_are_needed(
    gpus: int, given: int | None, nodes: int, how: str
) -> None:
    text = lines(*alone(gpus), how, nodes=given, file="plan.json")
    each = gpus // nodes
    assert f" {nodes} node{'s' * (nodes > 1)} x {each} GPU{'s' * (each > 1)}\n" in text
    several = nodes > 1
    # Of what cannot be known here, the reader is told.
    assert "# export NCCL_SOCKET_IFNAME=" in text
    assert "export NCCL_DEBUG=" in text
    if how == "slurm":
        for need in (f"nodes={nodes}", f"gpus-per-node={each}", f"cpus-per-task={4 * each}"):
            assert f"#SBATCH --{need}\n" in text
        assert ("MASTER_ADDR=$(" in text) is several
        assert ("MASTER_PORT=$((" in text) is several
        assert (f"--nodes {nodes} --rendezvous" in text) is several
    else:
        assert ("HOST=node0" in text.splitlines()[-2 * nodes - 2]) is several
        assert text.count("--node-rank ") == nodes * several
        assert (f"--nnodes={nodes} " in text) is several
        assert (f"--nproc-per-node={each} " in text) is several
        ports = {part.partition('"')[0] for part in text.split("$HOST:")[1:]}
        assert len(ports) == several
        assert all(f"--master-port={port} " in text for port in ports)


def test_what_is_no_step_of_many_gpus() -> None:
    for plan, step in (
        alone(0),
        (alone(8)[0], msgspec.structs.replace(alone(8)[1], launch="worker")),
    ):
        with pytest.raises(UsageError, match="is not a step for many GPUs"):
            lines(plan, step, "slurm", file="p")


def test_the_batch_is_said_where_the_step_has_one() -> None:
    plan, step = alone(8)
    assert "# batch 64 = " in lines(plan, step, "slurm", file="p")
    less = {name: value for name, value in step.params.items() if name != "accumulation"}
    assert "# batch" not in lines(
        plan, msgspec.structs.replace(step, params=less), "slurm", file="p"
    )


def test_a_step_alone_is_on_the_first_of_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KIT_LAUNCH", raising=False)
    here = nodes_here()
    assert (here.count, here.rank, here.host) == (1, 0, "127.0.0.1")


# The store.


def made(store: Store, key: str, size: int, **fields: Any) -> None:
    with store.workspace(key) as workspace:
        out = workspace / "out"
        out.mkdir()
        (out / "data").write_bytes(b"x" * size)
        store.commit(key, out, lambda *, files: entry(files=files, **fields))


def test_what_the_store_holds(tmp_path: Path) -> None:
    store, runs = Store(tmp_path / "home"), tmp_path / "runs"
    plan = plan_of()
    first, second = plan.instances[0].key, plan.instances[1].key
    made(store, first, 1000)
    made(store, second, 3000)
    made(store, "9" * 64, 1000)
    names = [f"run-{letter}" for letter in "fbdaceg"]
    for name in names:
        (runs / name).mkdir(parents=True)
        (runs / name / "plan.json").write_bytes(plan.to_json())
    (runs / "no-plan").mkdir()
    (runs / "damaged").mkdir()
    (runs / "damaged" / "plan.json").write_text("{")
    other = msgspec.structs.replace(plan, experiment="another", instances=plan.instances[:1])
    (runs / "z").mkdir()
    (runs / "z" / "plan.json").write_bytes(other.to_json())
    held = holdings(store, runs)
    assert [step.key for step in held] == [second, *sorted([first, "9" * 64])]
    by_key = {step.key: step for step in held}
    assert by_key[second].gb == pytest.approx(3e-6)
    assert by_key[first].runs == [*sorted(names), "z"]
    assert by_key[first].experiments == ["another", "toy"]
    assert by_key[second].runs == sorted(names)
    assert (by_key["9" * 64].runs, by_key["9" * 64].experiments) == ([], [])
    assert holdings(store, tmp_path / "nowhere")[0].runs == []


def test_days_since_a_step_was_made(tmp_path: Path) -> None:
    store, key = Store(tmp_path / "home"), "1" * 64
    made(store, key, 10)
    for days in (3, -1):
        at = time.time() - days * 86400
        os.utime(store.path(key) / "step.json", (at, at))
        (step,) = holdings(store, tmp_path)
        assert step.days == pytest.approx(max(0, days), abs=0.01)


def test_removing_counts_what_went_and_what_is_held(tmp_path: Path) -> None:
    store, keys = Store(tmp_path / "home"), ["1" * 64, "2" * 64, "3" * 64]
    for key in keys:
        made(store, key, 10)
    with store.lock(keys[1]):
        assert remove(store, keys) == (2, 1)
    assert [step.key for step in holdings(store, tmp_path)] == [keys[1]]


def test_checkpoints_weigh_what_their_files_do(tmp_path: Path) -> None:
    folder = tmp_path / "scratch" / "key"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "state").write_bytes(b"x" * 777)
    (kept,) = inventory.checkpoints(tmp_path)
    assert kept.size == sum(path.lstat().st_size for path in (folder, *folder.rglob("*")))
    assert 0 <= kept.days < 0.01
    assert inventory.removal([kept]) == f"rm -rf {folder}"


def test_files_of_a_record_are_in_order(tmp_path: Path) -> None:
    store, key = Store(tmp_path / "home"), "1" * 64
    with store.workspace(key) as workspace:
        out = workspace / "out"
        out.mkdir()
        for number in (7, 3, 11, 1, 9, 5, 2, 8, 12, 4, 10, 6):
            (out / f"f{number:02}").write_text(str(number))
        kept = store.commit(key, out, lambda *, files: entry(files=files))
    assert list(kept.files) == sorted(kept.files)
    assert len(kept.files) == 12


# Events.


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_an_event_file_is_closed_readable_and_without_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    before, mask = descriptors(), os.umask(0)
    try:
        for number in range(3):
            log = EventLog(path)
            log(event("note", text=str(number)))
            log.close()
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o644  # whoever may look may read it; nobody runs it
    assert descriptors() == before
    assert b"\n\n" not in path.read_bytes()
    assert [item["text"] for item in read_events(path)] == ["0", "1", "2"]
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_where_a_named_function_stands() -> None:
    written = {"a": "x", "b": ["y", "own=m:f", "z=m:f"], "c": "m:f", "d": ["n"], "e": 3}
    assert list(_places("m:f", written)) == [("b", 1), ("b", 2), ("b",), ("c",)]
