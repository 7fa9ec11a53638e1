"""What planning takes and refuses at its borders: axes, batches, GPUs, parameters, pins."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from kit.engine import batch, one_step, planner, wiring
from kit.engine.batch import GpusToUse, shares
from kit.engine.environment import Machine, environment_class, require_environment, require_gpus
from kit.engine.export.snakefile import ask, file_name, jobs
from kit.engine.hardware import Gpu, parse_gpus
from kit.engine.launch import Nodes
from kit.engine.one_step import _share
from kit.engine.params import parse_override
from kit.engine.planner import _in_words, fraction_overrides
from kit.engine.registry import (
    REGISTRY,
    NoParams,
    Registry,
    Sized,
    StepKind,
)
from kit.errors import InvalidInput, Preflight, UsageError
from kit.manifest.types import Resources
from kit.results.plan import Plan
from tests.engine.conftest import ToyPins, manifest, plan_of
from tests.engine.fakes import plan_of_graph
from tests.engine.test_batch import shared
from tests.engine.test_failures import STEP

# Axes.


def many(count: int) -> Any:
    mini = {"summary": "s", "matrix": {"seed": list(range(count))},
            "set": {"make": {"seed": "${seed}"}}}  # fmt: skip
    return manifest(profiles={"mini": mini})


def test_as_many_combinations_as_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "MOST_POINTS", 4)
    assert len(plan_of(many(4)).by_step["make"]) == 4
    with pytest.raises(InvalidInput, match="its axes have 5 combinations; the limit is 4"):
        plan_of(many(5))


def test_roles_are_written_in_the_order_of_their_names() -> None:
    axes = ["zeta", "beta", "omega", "alpha", "kappa", "delta"]
    mini = {"summary": "s", "matrix": {"seed": [0], **{axis: [1] for axis in axes}},
            "set": {"make": {"seed": "${seed}"}}}  # fmt: skip
    plain = msgspec.to_builtins(manifest())
    steps = [{**step, "each": ["seed", *axes] if step["id"] != "table" else []}
             for step in plain["steps"]]  # fmt: skip
    roles = dict.fromkeys(["seed", *axes], "replicate")
    made = plan_of(manifest(steps=steps, axes=roles, profiles={"mini": mini}))
    assert list(made.by_id["table"].roles) == sorted(["seed", *axes])


def test_missing_inputs_are_named_in_order() -> None:
    kind = StepKind("a/b", 1, NoParams, print, dict.fromkeys("dbcaef", "step"), (),
                    optional=frozenset("cf"))  # fmt: skip
    own = Registry()
    own.add(kind)
    step = {"id": "x", "kind": "a/b", "version": 1}
    made = manifest(steps=[step], results="x", profiles={"mini": {"summary": "s"}})
    use = wiring.Use(made, "mini", own, {})
    said = [hit.message for hit in wiring.kind_inputs(use)]
    assert [text.split("'")[1] for text in said] == ["a", "b", "d", "e"]


def test_parameters_of_unknown_kinds_are_not_looked_at() -> None:
    step = {"id": "x", "kind": "a/unknown", "version": 1}
    mini = {"summary": "s", "set": {"x": {"any": 1}}}
    made = manifest(steps=[step], results="x", profiles={"mini": mini})
    assert list(wiring.parameters(wiring.Use(made, "mini", REGISTRY, {}))) == []
    known = manifest(steps=[{**step, "kind": "toy/make", "version": 2}], results="x",
                     profiles={"mini": mini})  # fmt: skip
    said = [hit.message for hit in wiring.parameters(wiring.Use(known, "mini", REGISTRY, {}))]
    assert any("needs the parameter 'seed'" in text for text in said)
    assert any("has no parameter 'any'" in text for text in said)


# Pins and rehearsals.


class Gone(ToyPins):
    """A store that has none of its pins."""

    def digest(self, id: str) -> str:
        raise Preflight("not fetched", where=id)


def reading(**options: Any) -> Plan:
    step = {"id": "r", "kind": "toy/pinned", "version": 1, "inputs": {"source": {"pin": "words"}}}
    made = manifest(steps=[step], results="r", profiles={"mini": {"summary": "s"}})
    return plan_of(made, **options)


def test_only_a_rehearsal_does_without_its_pins(tmp_path: Path) -> None:
    with pytest.raises(Preflight, match="not fetched"):
        reading(digests=Gone(tmp_path))
    made = reading(digests=Gone(tmp_path), rehearsal=True)
    assert made.instances[0].pins["source"].digest == "stand-in"
    assert reading().instances[0].pins["source"].digest == "digest-of-words"


class Short(Struct, frozen=True):
    """Parameters of a kind that can be shortened."""

    rows: int = 100


@pytest.mark.parametrize(("fraction", "rows"), [(None, 100), (0.25, 25), (1.0, 100)])
def test_a_kind_is_shortened_where_a_share_is_asked_for(fraction: float | None, rows: int) -> None:
    own = Registry()
    own.add(
        StepKind(
            "a/short",
            1,
            Short,
            print,
            {},
            (),
            shortened=lambda params, share: Short(rows=int(params.rows * share)),
        )
    )
    own.add(StepKind("a/plain", 1, Short, print, {}, ()))
    for name, wanted in (("a/short", rows), ("a/plain", 100)):
        step = {"id": "x", "kind": name, "version": 1}
        made = manifest(steps=[step], results="x", profiles={"mini": {"summary": "s"}})
        plan = planner.make_plan(
            made, "mini", pins={}, digests=ToyPins(Path("nowhere")), registry=own,  # type: ignore[arg-type]
            machine=Machine(), rehearsal=True, fraction=fraction,
        )  # fmt: skip
        assert plan.instances[0].params == {"rows": wanted}
    step = {"id": "x", "kind": "a/short", "version": 1}
    made = manifest(steps=[step], results="x", profiles={"mini": {"summary": "s"}})
    assert fraction_overrides(made, "mini", own, 0.5) == []
    plain = manifest(steps=[{**step, "kind": "a/plain"}], results="x",
                     profiles={"mini": {"summary": "s"}})  # fmt: skip
    with pytest.raises(UsageError, match="no effect"):
        fraction_overrides(plain, "mini", own, 0.5)


@pytest.mark.parametrize(
    ("kind", "needs", "refused"),
    [
        ("toy/shared", {"processes": 1}, ""),
        ("toy/shared", {"processes": 2}, ""),
        ("toy/shared", {"processes": 1, "gpus": 2}, ""),
        ("toy/shared", {"processes": 2, "gpus": 2}, "has one for each"),
        ("toy/make", {"processes": 1}, ""),
        ("toy/make", {"processes": 2}, "runs in a single one"),
        ("toy/make", {"processes": 1, "gpus": 1}, ""),
    ],
)
def test_who_may_have_several_processes(kind: str, needs: dict[str, int], refused: str) -> None:
    world = needs.get("gpus") or needs["processes"]
    values = {"global_batch": 8, "micro_batch": 8 // world, "accumulation": 1}
    step = {"id": "x", "kind": kind, "version": 1 if kind == "toy/shared" else 2}
    mini = {"summary": "s", "set": {"x": values if kind == "toy/shared" else {"seed": 1}},
            "resources": {"x": needs}}  # fmt: skip
    made = manifest(steps=[step], results="x", profiles={"mini": mini})
    if refused:
        with pytest.raises(InvalidInput, match=refused):
            plan_of(made)
    else:
        one = plan_of(made).instances[0]
        several = kind == "toy/shared" and one.resources.world > 1
        assert one.launch == ("torchrun" if several else "worker")


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (("steps", 1, "inputs", "data"), "toy (mini), step 'mix', input 'data'"),
        (("steps", "mix"), "toy (mini), step 'mix'"),
        (("steps", "mix", "each"), "toy (mini), step 'mix'"),
        (("profiles", "mini", "set", "make"), "toy (mini), set.make"),
        ((), "toy (mini)"),
    ],
)
def test_an_error_without_a_file_says_where_in_words(path: Any, where: str) -> None:
    with pytest.raises(InvalidInput) as caught, _in_words(manifest(), "mini"):
        raise InvalidInput("wrong", path=path)
    assert caught.value.where == where
    with pytest.raises(InvalidInput) as caught, _in_words(manifest(), "mini"):
        raise InvalidInput("wrong", where="file:3", path=path)
    assert caught.value.where == "file:3"


def test_the_longest_step_that_an_override_names() -> None:
    assert parse_override("a.b.c=1=2", ["a", "a.b"]).step == "a.b"
    made = parse_override("a.b.c=1=2", ["a"])
    assert (made.step, made.param, made.text) == ("a", "b.c", "1=2")


# GPUs.


def sized(params: Any, models: Any, cards: Any) -> Sized | None:
    """Writes down what it was asked."""
    if cards.gpus == 7:
        raise ValueError("seven cannot share it")
    if cards.gpus == 9:
        return None
    return Sized(
        params={"rows": cards.gpus}, gpu_memory_gb=cards.gpu_gb - 0.5,
        memory_gb=3.2, minutes=None if cards.gpus == 1 else 5.0,
        words=f"{cards.memory_gb}",
    )  # fmt: skip


NEEDS = Resources(gpus=2, gpu_memory_gb=1.0, memory_gb=1.0, minutes=60.0)
H100 = Gpu(index="0", name="H100", arch="sm_90", memory_gb=80.0)
L4 = Gpu(index="1", name="L4", arch="sm_89", memory_gb=22.5)


@pytest.mark.parametrize(
    ("gpus", "gb", "here", "cards"),
    [
        (None, None, [H100], None),
        (4, None, [H100], (4, 80.0, 64.0)),
        (4, None, [H100, L4], (4, 22.5, 64.0)),  # the smallest of them
        (4, None, [], (4, batch.USUAL_GPU_GB, math.inf)),
        (None, 40.0, [H100], (2, 40.0, math.inf)),
        (1, 40.0, [], (1, 40.0, math.inf)),
    ],
)
def test_a_kind_is_asked_how_it_does_with_gpus(
    monkeypatch: pytest.MonkeyPatch, gpus: int | None, gb: float | None, here: list[Gpu],
    cards: tuple[int, float, float] | None,
) -> None:  # fmt: skip
    monkeypatch.setattr(batch, "memory_gb", lambda: 64.0)
    kind = StepKind("a/b", 1, Short, print, {}, (), sized=sized)
    use = GpusToUse(gpus, gb, Machine(gpus=here))
    params, needs, words = use.size(kind, Short(), NEEDS, {}, "x[seed=1]")
    if cards is None:
        assert (params, needs, words) == (Short(), NEEDS, "")
    else:
        assert params == Short(rows=cards[0])
        assert (needs.gpus, needs.gpu_memory_gb) == (cards[0], math.ceil(cards[1] - 0.5))
        assert needs.memory_gb == 4
        assert needs.minutes == (60.0 if cards[0] == 1 else 5.0)
        assert words == f"x: {cards[2]}"
    none = msgspec.structs.replace(NEEDS, gpus=0)
    assert use.size(kind, Short(), none, {}, "x") == (Short(), none, "")
    plain = StepKind("a/b", 1, Short, print, {}, ())
    assert use.size(plain, Short(), NEEDS, {}, "x") == (Short(), NEEDS, "")


def test_gpus_that_a_kind_cannot_use() -> None:
    kind = StepKind("a/b", 1, Short, print, {}, (), sized=sized)
    with pytest.raises(Preflight, match="seven cannot share it"):
        GpusToUse(7, None, Machine()).size(kind, Short(), NEEDS, {}, "x")
    assert GpusToUse(9, None, Machine()).size(kind, Short(), NEEDS, {}, "x")[2] == ""


@pytest.mark.parametrize(
    ("kind", "gpus", "shared_by_all"),
    [("toy/shared", 1, True), ("toy/shared", 0, False), ("toy/make", 2, False)],
)
def test_which_steps_share_a_batch(kind: str, gpus: int, shared_by_all: bool) -> None:
    assert shares(REGISTRY.get(kind), Resources(gpus=gpus)) is shared_by_all


@pytest.mark.parametrize(("wanted", "present", "fits"), [(0, 0, True), (2, 2, True), (3, 2, False)])
def test_gpus_that_are_there(wanted: int, present: int, fits: bool) -> None:
    step = msgspec.structs.replace(STEP, resources=Resources(gpus=wanted))
    if fits:
        require_gpus(step, present, "")
    else:
        with pytest.raises(Preflight, match="needs 3 GPUs, this machine has 2"):
            require_gpus(step, present, "")


@pytest.mark.parametrize(
    ("environment", "fits"),
    [
        ({}, True),
        ({"gpu_arch": None}, True),
        ({"gpu_arch": "sm_90"}, True),
        ({"gpu_arch": "sm_80"}, False),
        ({"torch": "2.0"}, True),
        ({"torch": "2.1"}, False),
        ({"vllm": None}, True),
        ({"torch": None}, False),
        ({"batch_invariant": True}, False),
        ({"dtype": "anything", "world": "8x1x1"}, True),
    ],
)
def test_the_environment_of_a_plan_is_that_of_the_machine(
    environment: dict[str, Any], fits: bool
) -> None:
    step = msgspec.structs.replace(STEP, environment=environment)
    machine = Machine(gpus=[H100], versions={"torch": "2.0"})
    if fits:
        require_environment(step, machine)
    else:
        with pytest.raises(Preflight, match="the plan was made for"):
            require_environment(step, machine)


@pytest.mark.parametrize(
    ("launch", "needs", "world"),
    [("torchrun", {"gpus": 4}, "4x2x3"), ("torchrun", {"processes": 3}, "3x2x3"),
     ("worker", {"gpus": 2}, "2x2x3"), ("worker", {}, "1x2x3")],
)  # fmt: skip
def test_the_world_of_a_step(launch: Any, needs: dict[str, int], world: str) -> None:
    kind = StepKind("a/b", 1, NoParams, print, {}, (), environment=("world",), launch=launch)
    params = {"micro_batch": 2, "accumulation": 3}
    made = environment_class(kind, params, Resources(**needs), Machine())  # type: ignore[arg-type]
    assert made == {"world": world}
    plain = environment_class(kind, {}, Resources(), Machine(), rehearsal=True)
    assert plain == {"world": "1x1x1", "rehearsal": True}


def test_cards_that_are_visible() -> None:
    text = "0, GPU-aa, A, 9.0, 81559, 5\nodd\n1, GPU-ab, B, 8.6, 1024, 5\n2, X, C, 8.0, 512, 5\n"
    assert [gpu.index for gpu in parse_gpus(text, None)] == ["0", "1", "2"]
    for visible, names in (("1,0", "BA"), ("GPU-ab", "B"), ("GPU-a", "A"), ("", ""), ("0,9,1", "A"),
                           ("2", "C"), ("-1", "")):  # fmt: skip
        assert "".join(gpu.name for gpu in parse_gpus(text, visible)) == names
    assert [gpu.memory_gb for gpu in parse_gpus(text, None)] == [79.6, 1.0, 0.5]


@pytest.mark.parametrize(
    ("gpus", "nodes", "launch", "each"),
    [(8, 2, "torchrun", 4), (2, 2, "torchrun", 1), (3, 2, "torchrun", 0), (0, 2, "torchrun", 0),
     (8, 2, "worker", 0)],
)  # fmt: skip
def test_a_node_has_its_share_of_the_gpus(gpus: int, nodes: int, launch: str, each: int) -> None:
    plan = shared()
    step = plan.instances[0]
    needs = msgspec.structs.replace(step.resources, gpus=gpus)
    step = msgspec.structs.replace(step, resources=needs, launch=launch)
    plan = msgspec.structs.replace(plan, instances=[step])
    if each:
        assert _share(plan, step, Nodes(count=nodes)).instances[0].resources.gpus == each
    else:
        with pytest.raises(UsageError, match="cannot run on 2 nodes"):
            _share(plan, step, Nodes(count=nodes))


@pytest.mark.parametrize("events", [True, False])
def test_where_a_single_step_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: bool
) -> None:
    seen: list[dict[str, Any]] = []

    def run_steps(plan: Plan, **how: Any) -> Any:
        seen.append(how)
        return one_step.complain

    monkeypatch.setattr(one_step, "run_steps", run_steps)
    monkeypatch.setattr(one_step, "complain", lambda plan, outcome, where: None)
    monkeypatch.setattr(one_step, "require_environment", lambda *given: None)
    one_step.run_instance(
        plan_of(), "make[seed=0]", home=tmp_path / "home", pins=ToyPins(tmp_path),  # type: ignore[arg-type]
        options=one_step.Options(), events=tmp_path / "deep" / "e.jsonl" if events else None,
    )  # fmt: skip
    assert seen[0]["logs"] == (tmp_path / "deep" if events else tmp_path / "home") / "logs"
    assert seen[0]["only"] == {"make[seed=0]"}
    assert (tmp_path / "deep").is_dir() is events


# What a scheduler is asked for.


@pytest.mark.parametrize(
    ("needs", "gpu", "threads"), [({}, 0, 1), ({"gpus": 1}, 1, 4), ({"gpus": 3}, 3, 12)]
)
def test_threads_of_a_request(needs: dict[str, int], gpu: int, threads: int) -> None:
    made = ask(Resources(memory_gb=2.0, minutes=10.0, **needs))  # type: ignore[arg-type]
    assert (made.gpu, made.threads) == (gpu, threads)
    more = ask(Resources(memory_gb=3.0, minutes=25.5))
    assert more.mem_mb - ask(Resources(memory_gb=2.0)).mem_mb == 1024
    assert more.runtime - ask(Resources(minutes=10.0)).runtime == 31


def test_equal_steps_are_one_job_after_what_they_read() -> None:
    plan = plan_of_graph({"a": [], "b": [], "c": ["a", "b"], "d": ["a"]}, same={"b": "a"})
    made = jobs(plan)
    assert list(made) == ["a", "c", "d"]
    name = file_name(plan.by_id["a"])
    assert made["c"][file_name(plan.by_id["c"])]["after"] == [f"finished/a/{name}"]
    assert made["a"][name]["after"] == []
