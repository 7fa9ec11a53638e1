"""Doing one job: what is kept, what is not, and when work is not repeated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.engine.context import StepContext
from kit.engine.events import Event
from kit.engine.job import Job, make_job
from kit.engine.registry import NoParams, Registry, StepKind
from kit.engine.store import CANARIES, RECORD, Store
from kit.engine.worker import Measured, perform
from kit.errors import InvalidInput, StepFailed
from kit.results.plan import Plan
from tests.engine.fakes import NoPins, plan_of_graph

Function = Callable[[StepContext, Any], None]


def write(context: StepContext, params: NoParams) -> None:
    (context.out / "a.txt").write_text("a")


def registry_of(function: Function = write, outputs: tuple[str, ...] = ("a.txt",)) -> Registry:
    """A registry whose one kind is this function."""
    made = Registry()
    made.add(StepKind("fake/join", 1, NoParams, function, {}, outputs))
    return made


def job_of(home: Path, plan: Plan | None = None, **changes: Any) -> Job:
    plan = plan or plan_of_graph({"x": []})
    (instance,) = plan.instances
    instance = msgspec.structs.replace(instance, params={}, steps={}, **changes)
    return make_job(plan, instance, home=home, logs=home / "logs", pins=NoPins(), digests={})


class Done:
    """A performed job with its events."""

    def __init__(self, home: Path, registry: Registry | None = None, **changes: Any) -> None:
        self.events: list[Event] = []
        self.job = job_of(home, **changes)
        self.store = Store(home)
        self.entry = perform(self.job, registry or registry_of(), self.events.append)
        self.folder = self.store.path(self.job.instance.key)

    @property
    def names(self) -> list[str]:
        return [item["event"] for item in self.events]


def test_the_record_of_a_step(tmp_path: Path) -> None:
    done = Done(tmp_path)
    assert done.names == ["step-started", "step-done"]
    told = json.loads((done.folder / RECORD).read_text())
    assert told["kind"] == "fake/join"
    assert told["instance"] == "x"
    assert set(told["files"]) == {"a.txt"}
    assert told["seconds"] >= 0
    assert told["peak_memory_gb"] > 0
    assert told["started"].endswith("Z")
    assert done.events[-1]["digest"] == done.entry.digest


def test_a_finished_step_is_not_repeated(tmp_path: Path) -> None:
    Done(tmp_path)

    def never(context: StepContext, params: NoParams) -> None:
        raise AssertionError("it ran again")

    again = Done(tmp_path, registry_of(never))
    assert again.names == ["step-cached"]


def test_a_damaged_step_is_set_aside_and_repeated(tmp_path: Path) -> None:
    first = Done(tmp_path)
    (first.folder / "a.txt").chmod(0o644)
    (first.folder / "a.txt").write_text("b")
    again = Done(tmp_path)
    assert again.names == ["step-damaged", "step-started", "step-done"]
    aside = tmp_path / "tmp" / again.events[0]["moved_to"]
    assert (aside / "a.txt").read_text() == "b"
    assert (again.folder / "a.txt").read_text() == "a"


def test_a_step_made_from_other_inputs_is_repeated(tmp_path: Path) -> None:
    first = Done(tmp_path)
    job = msgspec.structs.replace(first.job, input_digests={"data": ["changed"]})
    events: list[Event] = []
    entry = perform(job, registry_of(), events.append)
    assert [item["event"] for item in events] == ["step-started", "step-done"]
    assert entry.input_digests == {"data": ["changed"]}


def test_canaries_are_an_output(tmp_path: Path) -> None:
    def run(context: StepContext, params: NoParams) -> None:
        write(context, params)
        context.canary("moved", True, "3 rows", ["asr."])

    done = Done(tmp_path, registry_of(run))
    (told,) = json.loads((done.folder / CANARIES).read_text())
    assert told == {
        "id": "moved",
        "step": "x",
        "passed": True,
        "detail": "3 rows",
        "cells": ["asr."],
    }
    assert CANARIES in done.entry.files
    assert done.entry.digest == Done(tmp_path / "plain").entry.digest  # readers never see them


def test_promised_folders_and_extra_files(tmp_path: Path) -> None:
    def run(context: StepContext, params: NoParams) -> None:
        (context.out / "model" / "deep").mkdir(parents=True)
        (context.out / "model" / "deep" / "w.bin").write_bytes(b"w")
        (context.out / "extra.txt").write_text("x")

    done = Done(tmp_path, registry_of(run, ("model",)))
    assert set(done.entry.files) == {"model/deep/w.bin", "extra.txt"}


def test_a_broken_promise(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"without its output 'b\.txt'") as caught:
        Done(tmp_path, registry_of(write, ("a.txt", "b.txt")))
    assert "it wrote a.txt" in caught.value.why
    assert Store(tmp_path).look(job_of(tmp_path).instance.key).entry is None


def test_a_declared_canary_that_was_not_left(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    declared = msgspec.structs.replace(job.instance, canaries=["moved"])
    with pytest.raises(StepFailed, match="without its canary 'moved'"):
        perform(msgspec.structs.replace(job, instance=declared), registry_of(), lambda event: None)
    assert Store(tmp_path).look(job.instance.key).entry is None


def test_scratch_survives_a_failure_and_not_success(tmp_path: Path) -> None:
    def run(context: StepContext, params: NoParams) -> None:
        kept = context.scratch / "checkpoint"
        if not kept.exists():
            kept.write_text("half")
            raise ValueError("stop")
        (context.out / "a.txt").write_text(kept.read_text())

    with pytest.raises(ValueError, match="stop"):
        Done(tmp_path, registry_of(run))
    assert len(list((tmp_path / "scratch").glob("*/checkpoint"))) == 1
    done = Done(tmp_path, registry_of(run))
    assert (done.folder / "a.txt").read_text() == "half"
    assert not list((tmp_path / "scratch").iterdir())


def test_versions_must_agree(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="version 7"):
        Done(tmp_path, version=7)


def test_unknown_kinds(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="unknown step kind"):
        Done(tmp_path, Registry())


def test_how_it_is_launched_is_the_callers_choice(tmp_path: Path) -> None:
    def launch(job: Job, kind: StepKind, out: Path, scratch: Path, emit: Any) -> Measured:
        (out / "a.txt").write_text("elsewhere")
        return Measured(peak_memory_gb=3.0, peak_gpu_memory_gb=4.0)

    entry = perform(job_of(tmp_path), registry_of(), lambda item: None, launch=launch)
    assert (entry.peak_memory_gb, entry.peak_gpu_memory_gb) == (3.0, 4.0)


def test_input_keys_and_digests_are_recorded(tmp_path: Path) -> None:
    from tests.engine.fakes import Harness

    plan = plan_of_graph({"a": [], "b": ["a"]})
    done = Harness(plan, tmp_path)
    entry = done.outcome.entries["b"]
    assert entry.inputs == {"all": [plan.by_id["a"].key]}
    assert entry.input_digests == {"all": [done.outcome.entries["a"].digest]}
