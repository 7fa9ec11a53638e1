"""One step of a plan file: in the right environment, with a link that is true."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.cli.main import run as kit
from kit.engine.environment import Machine, require_environment, this_machine
from kit.engine.hardware import Gpu
from kit.engine.keys import instance_key
from kit.engine.launch import NODES_VARIABLE, Nodes
from kit.engine.one_step import link_record, run_instance
from kit.engine.registry import REGISTRY
from kit.engine.runner import Outcome
from kit.engine.session import Options
from kit.engine.store import Store
from kit.errors import EXIT_INVALID, InvalidInput, KitError, Preflight
from kit.results.plan import Plan, StepInstance, read_plan
from tests.engine.conftest import ToyPins, manifest, plan_of


def step(plan: Plan, id: str, home: Path, **options: Any) -> None:
    run_instance(plan, id, home=home, pins=ToyPins(home), options=Options(jobs=1), **options)


def instance(**environment: Any) -> StepInstance:
    return msgspec.structs.replace(plan_of().instances[0], environment=environment)


GPU = Gpu(index="0", name="H100", arch="sm_90", memory_gb=80.0)


@pytest.mark.parametrize(
    ("environment", "machine"),
    [
        ({"device": "cpu", "torch": "2.0"}, Machine(versions={"torch": "2.0"})),
        ({"torch": None}, Machine(versions={"torch": None})),
        ({"torch": None}, Machine()),
        ({"gpu_arch": None}, Machine(gpus=[GPU])),  # a CPU step, on a machine with a GPU
        ({"device": "cuda", "gpu_arch": "sm_90"}, Machine(gpus=[GPU])),
        ({"dtype": "float32", "world": "1x1x1"}, Machine()),
    ],
)
def test_the_environment_is_the_plans(environment: dict[str, Any], machine: Machine) -> None:
    require_environment(instance(**environment), machine)


@pytest.mark.parametrize(
    ("environment", "machine", "words"),
    [
        ({"torch": "2.0"}, Machine(versions={"torch": "2.1"}), r"torch 2.0 \(here 2.1\)"),
        ({"vllm": "0.26"}, Machine(), r"vllm 0.26 \(here absent\)"),
        ({"torch": None}, Machine(versions={"torch": "2.1"}), r"torch absent \(here 2.1\)"),
        ({"gpu_arch": "sm_80"}, Machine(gpus=[GPU]), r"gpu_arch sm_80 \(here sm_90\)"),
        ({"gpu_arch": "sm_80"}, Machine(), r"gpu_arch sm_80 \(here unknown\)"),
        ({"batch_invariant": True}, Machine(), "batch_invariant True"),
    ],
)
def test_a_key_that_would_lie_is_refused(
    environment: dict[str, Any], machine: Machine, words: str
) -> None:
    with pytest.raises(Preflight, match=words):
        require_environment(instance(**environment), machine)


def test_a_plan_from_elsewhere_is_not_computed_but_taken_if_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of()
    made = msgspec.structs.replace(plan.instances[0], environment={"numpy": "0.1"})
    made = msgspec.structs.replace(made, key=instance_key(made, REGISTRY.get(made.kind), {}, {}))
    foreign, id = msgspec.structs.replace(plan, instances=[made]), made.id
    with pytest.raises(Preflight, match=r"numpy 0\.1"):
        step(foreign, id, tmp_path)
    assert Store(tmp_path).look(made.key).entry is None
    with monkeypatch.context() as there:
        there.setattr("kit.engine.one_step.require_environment", lambda *_: None)
        step(foreign, id, tmp_path)
    step(foreign, id, tmp_path)  # nothing is left to compute


@pytest.mark.parametrize(
    ("edited", "changes"),
    [
        ("make[seed=0]", {"params": {"seed": 0, "size": 1001}}),
        ("make[seed=0]", {"environment": {"numpy": "0.1"}}),
        ("make[seed=0]", {"version": 3}),
        ("mix[seed=0]", {"params": {"factor": 4}}),
        ("mix[seed=0]", {"key": "0" * 64}),
        ("table", {"roles": {"seed": "setting"}}),
    ],
)
def test_an_edited_plan_is_refused_wherever_it_was_edited(
    tmp_path: Path, edited: str, changes: dict[str, Any]
) -> None:
    """Outputs of 30 steps under the key of 200 would be taken for those of 200 later."""
    plan = plan_of()
    for id in ("make[seed=0]", "mix[seed=0]"):
        step(plan, id, tmp_path)
    false = msgspec.structs.replace(
        plan,
        instances=[
            msgspec.structs.replace(one, **changes) if one.id == edited else one
            for one in plan.instances
        ],
    )
    for id in [edited, "table"]:
        with pytest.raises(InvalidInput, match="not the key of its parameters") as caught:
            step(false, id, tmp_path)
        assert "kit plan" in caught.value.next_step
    assert Store(tmp_path).look("0" * 64).entry is None


@pytest.mark.parametrize(
    ("params", "said"), [({"seed": 0, "size": 10**15}, "the limit is"), ({"size": 5}, "seed")]
)
def test_an_edited_plan_with_a_key_to_match_is_held_to_the_kind(
    tmp_path: Path, params: dict[str, Any], said: str
) -> None:
    plan = plan_of()
    made = msgspec.structs.replace(plan.instances[0], params=params)
    made = msgspec.structs.replace(made, key=instance_key(made, REGISTRY.get(made.kind), {}, {}))
    with pytest.raises(InvalidInput, match=said) as caught:
        step(msgspec.structs.replace(plan, instances=[made]), made.id, tmp_path)
    assert caught.value.where == made.id


def test_events_go_to_a_folder_that_is_made(tmp_path: Path) -> None:
    events = tmp_path / "deep" / "down" / "events.jsonl"
    step(plan_of(), "make[seed=0]", tmp_path / "home", events=events)
    assert '"step-done"' in events.read_text()


def test_a_link_ends_with_its_record(tmp_path: Path) -> None:
    plan, store = plan_of(), Store(tmp_path / "home")
    link, key = tmp_path / "finished" / "make" / "0", plan.instances[0].key
    step(plan, plan.instances[0].id, store.home)
    link_record(store, key, link)
    link_record(store, key, link)  # again, over the first
    assert link.is_symlink()
    assert link.read_bytes() == (store.path(key) / "step.json").read_bytes()
    assert [path.name for path in link.parent.iterdir()] == ["0"]
    shutil.rmtree(store.path(key))
    assert not link.exists()


def test_a_compressed_plan(tmp_path: Path) -> None:
    plan, file = plan_of(), tmp_path / "plan.json.gz"
    file.write_bytes(gzip.compress(plan.to_json()))
    assert read_plan(file) == plan
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InvalidInput, match="not a plan"):
        read_plan(file)
    file.write_bytes(b"\x1f\x8b nonsense")
    with pytest.raises(InvalidInput, match="plan"):
        read_plan(file)


def test_this_machine_may_run_its_own_plan() -> None:
    machine = this_machine()
    plan = plan_of(machine=machine)
    for one in plan.instances:
        require_environment(one, machine)


def _changed(plan: Plan, **fields: Any) -> Plan:
    """The plan with something else in its last instance, which reads others."""
    *rest, last = plan.instances
    return msgspec.structs.replace(
        plan, instances=[*rest, msgspec.structs.replace(last, **fields)], results=last.id
    )


def _reading(plan: Plan, id: str) -> Plan:
    uses = {
        name: msgspec.structs.replace(use, instances=[id])
        for name, use in plan.instances[-1].steps.items()
    }
    assert uses
    return _changed(plan, steps=uses)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plan: _changed(plan, key="../../precious"), "is not 64 hexadecimal digits"),
        (lambda plan: _changed(plan, key="/precious"), "is not 64 hexadecimal digits"),
        (lambda plan: _reading(plan, "nobody"), "reads 'nobody', which is not among"),
        (lambda plan: _reading(plan, plan.instances[-1].id), "which is not among the steps before"),
        (lambda plan: _changed(plan, id=plan.instances[0].id), "two steps are called"),
        (lambda plan: msgspec.structs.replace(plan, results="nobody"), "no step 'nobody'"),
        (lambda plan: msgspec.structs.replace(plan, experiment="../x"), "is not a name"),
        (lambda plan: msgspec.structs.replace(plan, profile="a/../x"), "is not a name"),
        (lambda plan: msgspec.structs.replace(plan, instances=[]), "there is no step"),
    ],
)
def test_a_plan_that_the_kit_did_not_make(
    tmp_path: Path, change: Callable[[Plan], Plan], said: str
) -> None:
    """A key names a lock, a folder to clean and one to fill: it must not lead out of the store."""
    path = tmp_path / "plan.json"
    path.write_bytes(change(plan_of()).to_json())
    with pytest.raises(InvalidInput, match=said) as caught:
        read_plan(path)
    assert caught.value.where == str(path)


def test_a_hostile_key_destroys_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, precious = tmp_path / "a" / "kit", tmp_path / "a" / "precious"
    home.mkdir(parents=True)
    precious.write_text("mine")
    monkeypatch.setenv("KIT_HOME", str(home))
    plan = plan_of()
    first = msgspec.structs.replace(plan.instances[0], key="../../precious")
    path = tmp_path / "plan.json"
    path.write_bytes(msgspec.structs.replace(plan, instances=[first]).to_json())
    assert kit(["step", str(path), first.id]) == EXIT_INVALID
    assert precious.read_text() == "mine"


def test_a_link_that_cannot_be_made_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "finished").write_text("a file")
    with pytest.raises(KitError) as caught:
        link_record(Store(tmp_path / "home"), "0" * 64, tmp_path / "finished" / "0")
    assert caught.value.where == str(tmp_path / "finished" / "0")


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_the_first_node_runs_the_step_and_the_others_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """Each with its share of the GPUs."""
    did: list[tuple[str, int]] = []

    def join(instance: StepInstance, **how: Any) -> None:
        assert instance.resources.gpus == how["processes"]
        assert how["nodes"].rank == rank
        did.append(("join", how["processes"]))

    def run_steps(plan: Plan, **how: Any) -> Outcome:
        assert how["only"] == {"r"}
        did.append(("run", plan.by_id["r"].resources.gpus))
        return Outcome()

    monkeypatch.setattr("kit.engine.one_step.join", join)
    monkeypatch.setattr("kit.engine.one_step.run_steps", run_steps)
    monkeypatch.setattr("kit.engine.one_step.hardware.gpus", lambda: [GPU, GPU])
    monkeypatch.setattr("kit.engine.one_step.require_environment", lambda *_: None)
    monkeypatch.setenv(NODES_VARIABLE, "")
    profile = {"summary": "s", "resources": {"r": {"gpus": 6}}}
    steps = [{"id": "r", "kind": "toy/rank", "version": 1}]
    plan = plan_of(manifest(steps=steps, results="r", profiles={"mini": profile}))
    nodes = Nodes(count=3, rank=rank, host="h", port=9)
    step(plan, "r", tmp_path, nodes=nodes)
    assert did == [("join" if rank else "run", 2)]
    assert msgspec.json.decode(os.environ[NODES_VARIABLE], type=Nodes) == nodes
