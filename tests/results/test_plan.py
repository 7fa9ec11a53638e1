"""The plan: what remains, what a step is called, and files that are none."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from kit.errors import InvalidInput, UsageError
from kit.manifest.pin_types import Pin, PinnedFile
from kit.manifest.types import Resources
from kit.results.plan import StepUse, read_plan
from tests import run_files

NEEDS = {
    "a": Resources(gpus=2, gpu_memory_gb=30, memory_gb=4, minutes=30, disk_gb=1),
    "b": Resources(gpus=1, gpu_memory_gb=70, memory_gb=8, minutes=60, disk_gb=2),
    "c": Resources(memory_gb=16, minutes=90, disk_gb=4),
}
PINS = [
    Pin(id=id, kind=kind, title="T", licence="L",  # type: ignore[arg-type]
        files=[PinnedFile(path="x", size=size), PinnedFile(path="y")])
    for id, kind, size in (("p", "file", 10**9), ("q", "file", 2 * 10**9), ("r", "package", 10**10))
]  # fmt: skip


def test_what_remains_is_added_up_without_what_is_there() -> None:
    made = [run_files.instance(id, resources=needs) for id, needs in NEEDS.items()]
    plan = run_files.plan(*made, pins=PINS)
    whole = plan.totals([])
    assert (whole.instances, whole.to_run, whole.cpu_hours, whole.gpu_hours) == (3, 3, 1.5, 2.0)
    assert (whole.gpus, whole.gpu_memory_gb, whole.memory_gb, whole.disk_gb) == (2, 70, 16, 7)
    assert whole.download_gb == 3.0
    rest = plan.totals(["b", "c"], ["q"])
    assert (rest.instances, rest.to_run, rest.cpu_hours, rest.gpu_hours) == (3, 1, 0, 1.0)
    assert (rest.gpus, rest.gpu_memory_gb, rest.memory_gb, rest.disk_gb) == (2, 30, 4, 1)
    assert rest.download_gb == 1.0
    done = plan.totals(list(NEEDS), ["p", "q"])
    assert (done.to_run, done.gpus, done.gpu_memory_gb, done.memory_gb) == (0, 0, 0, 0)
    assert (done.disk_gb, done.download_gb) == (0, 0)


def test_a_step_that_is_not_there_is_answered_with_some_that_are() -> None:
    ids = [f"train[seed={i}]" for i in range(12)]
    plan = run_files.plan(run_files.instance("table"), *[run_files.instance(id) for id in ids])
    assert plan.instance("table").id == "table"
    assert [one.id for one in plan.by_step["train"]] == ids
    with pytest.raises(UsageError, match="the plan has no step 'train'") as caught:
        plan.instance("train")
    assert caught.value.next_step.endswith(", ".join(ids[:8]))
    with pytest.raises(UsageError) as caught:
        plan.instance("other")
    assert ": table, train[seed=0]," in caught.value.next_step


def test_inputs_are_named_in_order_and_digests_sorted() -> None:
    made = run_files.instance("x", before=("b", "a"))
    made.steps["many"] = StepUse(instances=["c", "a"], many=True)
    assert list(made.upstream()) == ["b", "a", "c", "a"]
    digests = {"a": "2", "b": "1", "c": "0"}
    assert made.input_digests(digests) == {"input-0": ["1"], "input-1": ["2"], "many": ["0", "2"]}


def test_a_plan_is_read_back_packed_or_not(tmp_path: Path) -> None:
    plan = run_files.plan(run_files.instance("a"), run_files.instance("b", before=("a",)))
    (tmp_path / "plan.json").write_bytes(plan.to_json())
    (tmp_path / "plan.json.gz").write_bytes(gzip.compress(plan.to_json()))
    for name in ("plan.json", "plan.json.gz"):
        assert read_plan(tmp_path / name) == plan
    (tmp_path / "cut.gz").write_bytes(gzip.compress(plan.to_json())[:-9])
    (tmp_path / "no.json").write_text("{")
    for name in ("cut.gz", "no.json"):
        with pytest.raises(InvalidInput) as caught:
            read_plan(tmp_path / name)
        assert str(tmp_path / name) in caught.value.where
