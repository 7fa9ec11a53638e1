"""Records, published results, rehearsals, run directories, single steps."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.engine.one_step import run_instance
from kit.engine.record import add_outcome, begin, code_state, pin_records, publish
from kit.engine.rehearse import findings, plan_error, write_rehearsal
from kit.engine.runner import Outcome
from kit.engine.session import Options, complain, new_run_dir
from kit.engine.store import Store, StoredStep
from kit.errors import Interrupted, InvalidInput, Many, Preflight, StepFailed
from kit.manifest.types import Resources
from kit.results.plan import Plan
from kit.results.record import FileRecord, Record
from kit.results.types import Canary, Cell, Results
from tests.engine.conftest import PIN, ToyPins, plan_of
from tests.engine.fakes import Harness, plan_of_graph

Run = Callable[..., Path]


def entry(**fields: Any) -> StoredStep:
    return StoredStep(
        kind="toy/make",
        version=1,
        instance="other-name",
        params={},
        **{"started": "2026-01-01T00:00:00.000Z", "seconds": 60.0, "files": {}, **fields},
    )


def outcome_of(plan: Plan, made: StoredStep) -> Outcome:
    """All steps run, all with the same entry."""
    return Outcome(
        states={one.id: "run" for one in plan.instances},
        entries={one.id: made for one in plan.instances},
    )


def record_of(plan: Plan) -> Record:
    return begin(plan, argv=["kit"], environ={}, started="now", options={"jobs": 2})


# Records.


def test_a_record_is_whole_from_the_beginning() -> None:
    told = json.loads(record_of(plan_of()).to_json())
    assert told["status"] == "running"
    assert told["experiment"] == "toy"
    assert told["options"] == {"jobs": 2}
    assert told["steps"] == {}
    assert msgspec.json.decode(record_of(plan_of()).to_json(), type=Record).profile == "mini"


def test_states_and_measurements_of_steps(tmp_path: Path) -> None:
    plan, record = plan_of(), record_of(plan_of())
    made = entry(files={"a": FileRecord("0" * 64, 3)}, peak_memory_gb=0.5)
    outcome = outcome_of(plan, made)
    outcome.states["table"] = "blocked"
    del outcome.entries["table"]
    outcome.errors.append(StepFailed("no", where="mix"))
    outcome.jobs["table"] = "12_3"
    for name in ("logs/table.log", "slurm/12_3_0_log.err", "slurm/12_4_0_log.err"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    add_outcome(record, plan, outcome, tmp_path)
    told = json.loads(record.to_json())
    assert told["steps"]["table"] == {
        "key": plan.by_id["table"].key,
        "state": "blocked",
        "job": "12_3",
        "logs": ["logs/table.log", "slurm/12_3_0_log.err"],
    }
    step = told["steps"]["make[seed=0]"]
    assert (step["state"], step["seconds"], step["peak_memory_gb"]) == ("run", 60.0, 0.5)
    assert step["outputs"] == {"a": {"sha256": "0" * 64, "size": 3}}
    assert told["errors"] == ["mix: no"]


def test_pins_of_a_record() -> None:
    plan = plan_of()
    assert pin_records(plan) == {}
    plan.pins.append(PIN)
    assert pin_records(plan)["words"].licence == "MIT"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git repository with one commit."""
    for arguments in (
        ["init", "-q"],
        ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    return tmp_path


def test_commit_and_changes(checkout: Path) -> None:
    commit, dirty = code_state(checkout)
    assert commit is not None
    assert len(commit) == 40
    assert dirty is False
    (checkout / "new.py").touch()
    assert code_state(checkout) == (commit, True)


# Results.


def results_in(home: Path, plan: Plan, content: bytes) -> Store:
    store = Store(home)
    folder = store.path(plan.by_id[plan.results].key)
    folder.mkdir(parents=True)
    (folder / "results.json").write_bytes(content)
    return store


def table(*canaries: Canary) -> bytes:
    return msgspec.json.encode(
        Results(
            schema_version=1,
            experiment="written-by-the-step",
            version="9-Z",
            profile="paper",
            cells=[Cell(id="a", unit="1", value=1.0)],
            canaries=list(canaries),
        )
    )


def published(tmp_path: Path, content: bytes, made: StoredStep) -> Results:
    plan = plan_of()
    store = results_in(tmp_path / "home", plan, content)
    path = publish(plan, outcome_of(plan, made), store, tmp_path)
    return msgspec.json.decode(path.read_bytes(), type=Results)


def test_results_are_stamped_with_this_experiment(tmp_path: Path) -> None:
    results = published(tmp_path, table(), entry())
    assert (results.experiment, results.version, results.profile) == ("toy", "1-A", "mini")
    assert results.cells[0].value == 1.0
    assert not (tmp_path / "labels.jsonl").exists()


def test_canaries_come_from_all_steps_under_their_names_here(tmp_path: Path) -> None:
    made = entry(canaries=[Canary(id="moved", step="other-name", passed=True, detail="")])
    own = Canary(id="labels", step="table", passed=False, detail="")
    results = published(tmp_path, table(own), made)
    assert {(one.step, one.id) for one in results.canaries} == {
        (one.id, "moved") for one in plan_of().instances
    } | {("table", "labels")}


def test_a_canary_that_passes_later_does_not_hide_one_that_failed(tmp_path: Path) -> None:
    said = [
        Canary(id="moved", step="make", passed=passed, detail=word)
        for passed, word in ((False, "no"), (True, "yes"), (True, "yes"))
    ]
    results = published(tmp_path, table(), entry(canaries=said))
    first = plan_of().instances[0].id
    heard = [(one.passed, one.detail) for one in results.canaries if one.step == first]
    assert heard == [(False, "no"), (True, "yes")]


def test_labels_come_along(tmp_path: Path) -> None:
    plan = plan_of()
    store = results_in(tmp_path / "home", plan, table())
    (store.path(plan.by_id["table"].key) / "labels.jsonl").write_text("{}\n")
    publish(plan, outcome_of(plan, entry()), store, tmp_path)
    assert (tmp_path / "labels.jsonl").read_text() == "{}\n"


@pytest.mark.parametrize("content", [b"", b"{}", b'{"schema_version": 1}', b"\xff"])
def test_results_that_are_none(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(StepFailed, match="not what it must be") as caught:
        published(tmp_path, content, entry())
    assert caught.value.where == "table"


# Rehearsals.


def test_findings_name_what_was_underestimated() -> None:
    plan = plan_of()
    record = record_of(plan)
    add_outcome(record, plan, outcome_of(plan, entry(seconds=120.0, peak_memory_gb=0.5)))
    make, mix, _ = findings(plan, record)
    assert (make.step, make.instances, make.measured_minutes) == ("make", 3, 2.0)
    third = record_of(plan)
    add_outcome(third, plan, outcome_of(plan, entry(seconds=100.0)))
    assert findings(plan, third)[0].measured_minutes == 1.6667
    assert make.over == ["time", "memory"]  # planned: 0.01 minutes, 0.1 GB
    assert mix.over == ["time"]
    gpu = msgspec.structs.replace(make, peak_gpu_memory_gb=81.0, planned_gpu_memory_gb=80.0)
    assert "GPU memory" in gpu.over


def test_plan_error_is_a_share_of_what_was_measured() -> None:
    plan = plan_of()
    instances = [
        msgspec.structs.replace(
            one,
            resources=Resources(gpus=1, gpu_memory_gb=30.0 if one.step == "make" else 10.0),
        )
        for one in plan.instances
    ]
    plan = msgspec.structs.replace(plan, instances=instances)
    record = record_of(plan)
    add_outcome(record, plan, outcome_of(plan, entry(seconds=80.0, peak_gpu_memory_gb=20.0)))
    found = plan_error(plan, record)
    assert found.minutes == pytest.approx(0.25)  # a minute planned, 80 seconds measured
    assert (found.gpu_memory, found.gpu_memory_step) == (0.5, "make")
    assert plan_error(plan, record, fraction=0.5).minutes is None
    record = record_of(plan)
    add_outcome(record, plan, Outcome(states={one.id: "waiting" for one in plan.instances}))
    nothing = plan_error(plan, record)
    assert (nothing.minutes, nothing.gpu_memory, nothing.gpu_memory_step) == (None, None, None)


def test_steps_that_did_not_run_have_no_measurement() -> None:
    plan = plan_of()
    record = record_of(plan)
    add_outcome(record, plan, Outcome(states={one.id: "waiting" for one in plan.instances}))
    assert [one.measured_minutes for one in findings(plan, record)] == [None] * 3
    assert findings(plan, record)[0].over == []


def test_rehearsal_file(run_toy: Run) -> None:
    plan = plan_of(rehearsal=True)
    folder = run_toy(plan)
    made = write_rehearsal(plan, folder, 0.25)
    told = json.loads((folder / "rehearsal.json").read_text())
    assert told["fraction"] == made.fraction == 0.25
    assert told["hardware"]["cores"] >= 1


# Run directories.


def test_names_of_run_directories(tmp_path: Path) -> None:
    made = [new_run_dir(tmp_path / "deep" / "runs", "exp", "mini") for _ in range(5)]
    assert len(set(made)) == 5
    assert all(path.name.startswith("exp-mini-2") for path in made)
    rehearsal = new_run_dir(tmp_path, "exp", "paper", rehearsal=True)
    assert rehearsal.name.startswith("exp-paper-rehearsal-2")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Preflight) as caught:
        new_run_dir(tmp_path / "file" / "runs", "exp", "mini")
    assert "--runs-dir" in caught.value.next_step


# Ends.


def test_ends_of_a_run() -> None:
    plan = plan_of()
    complain(plan, outcome_of(plan, entry()), "here")
    first, second = StepFailed("a"), StepFailed("b")
    with pytest.raises(StepFailed, match="a"):
        complain(plan, Outcome(errors=[first]), "here")
    with pytest.raises(Many):
        complain(plan, Outcome(errors=[first, second]), "here")
    stopped = Outcome(states={"x": "run", "y": "stopped", "z": "waiting"}, interrupted=True)
    with pytest.raises(Interrupted, match="2 of 3 steps left"):
        complain(plan, stopped, "here")


# One step.


def one(tmp_path: Path, step: str, plan: Plan | None = None) -> None:
    run_instance(
        plan if plan is not None else plan_of(),
        step,
        home=tmp_path / "home",
        pins=ToyPins(tmp_path / "pins"),
        options=Options(jobs=1),
        events=tmp_path / "out" / "events.jsonl",
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_a_single_step_after_what_it_reads(tmp_path: Path, out: Path) -> None:
    with pytest.raises(InvalidInput, match=r"reads make\[seed=0\], which is not finished"):
        one(tmp_path, "mix[seed=0]")
    one(tmp_path, "make[seed=0]")
    one(tmp_path, "mix[seed=0]")
    events = (out / "events.jsonl").read_text()
    assert events.count('"step-done"') == 2


def test_a_single_step_refuses_damaged_inputs(tmp_path: Path, out: Path) -> None:
    one(tmp_path, "make[seed=0]")
    data = Store(tmp_path / "home").path(plan_of().by_id["make[seed=0]"].key) / "data.txt"
    data.chmod(0o644)
    os.truncate(data, 3)
    with pytest.raises(InvalidInput, match="has 3 bytes"):
        one(tmp_path, "mix[seed=0]")


def test_a_single_step_needs_its_pins(tmp_path: Path, out: Path) -> None:
    from tests.engine.test_session import pinned_plan

    with pytest.raises(Preflight, match="not fetched"):
        one(tmp_path, "read", pinned_plan())
    one(tmp_path, "read", pinned_plan(rehearsal=True))


# Plans of any shape keep what they were made of.


def test_hand_made_plans_run_like_any_other(tmp_path: Path) -> None:
    plan = plan_of_graph({"a": [], "b": ["a"]})
    again = msgspec.json.decode(plan.to_json(), type=Plan)
    assert Harness(again, tmp_path).in_state("run") == {"a", "b"}


def test_what_is_planned_is_the_largest_of_a_steps_instances() -> None:
    names = ("minutes", "memory_gb", "gpu_memory_gb")
    needs = {"make[seed=0]": (1.0, 4.0, 8.0), "make[seed=1]": (3.0, 2.0, 24.0),
             "make[seed=2]": (2.0, 1.0, 16.0)}  # fmt: skip
    plan = plan_of()
    for one in plan.instances:
        if one.id in needs:
            more = dict(zip(names, needs[one.id], strict=True))
            larger = msgspec.structs.replace(one.resources, **more)  # type: ignore[arg-type]
            plan = _changed(plan, one.id, resources=larger)
    record = record_of(plan)
    add_outcome(record, plan, outcome_of(plan, entry(seconds=90.0)))
    make = findings(plan, record)[0]
    assert (make.instances, make.planned_minutes) == (3, 3.0)
    assert (make.planned_memory_gb, make.planned_gpu_memory_gb) == (4.0, 24.0)
    assert make.measured_minutes == 1.5


def _changed(plan: Plan, id: str, **fields: Any) -> Plan:
    return msgspec.structs.replace(
        plan,
        instances=[
            msgspec.structs.replace(one, **fields) if one.id == id else one
            for one in plan.instances
        ],
    )
