"""Code and declarations of kinds, failures in words, the next GPU step: at their borders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.engine import code, registry
from kit.engine.failures import Shortage, _chain, failure_of, shortage_of, step_failed
from kit.engine.registry import (
    REGISTRY,
    ModelOutput,
    NoParams,
    Registry,
    Remedy,
    StepKind,
    draws_fault,
)
from kit.engine.runner import Runner
from kit.engine.store import Store
from kit.manifest.types import Resources
from kit.results.plan import Plan
from tests.engine.fakes import FakeExecutor, Harness, NoPins, plan_of_graph
from tests.engine.test_code import digest, package
from tests.engine.test_failures import ON_GPU, STEP

__all__ = ["package"]


# Code.


def test_code_does_not_depend_on_the_order_of_further_modules(package: Path) -> None:
    names = ("my_stale.alone", "my_stale.unrelated")
    assert digest(names) == digest(names[::-1])
    assert digest(names) != digest(names[:1])


def test_a_decorator_and_the_first_line_are_part_of_a_function(package: Path) -> None:
    steps = package / "steps.py"
    text = "RATE = 3\n\ndef wrapped(by):\n    return lambda run: run\n\n@wrapped(\n    by=1,\n)\n"
    text += "def run(context, params):\n    return 1\n"
    steps.write_text(text)
    before = digest()
    for old, new in (
        ("by=1", "by=2"),
        ("run(context", "run(ctx"),
        ("return 1", "return 2"),
        ("@wrapped(\n", "@wrapped (\n"),
        ("return lambda run: run", "return print"),
    ):
        steps.write_text(text.replace(old, new))
        assert digest() != before, old
    steps.write_text(text.replace("RATE = 3", "RATE = 4"))
    assert digest() == before


def test_a_whole_module_that_is_imported_by_name_counts(package: Path) -> None:
    steps, other = package / "steps.py", package / "unrelated.py"
    steps.write_text("def run(context, params):\n    import my_stale.unrelated\n    import json\n")
    other.write_text("A = 1\n")
    before = digest()
    other.write_text("A = 2\n")
    assert digest() != before
    assert "my_stale.unrelated" in reach_of("my_stale.steps", "run")
    assert not [name for name in reach_of("my_stale.steps", "run") if name.startswith("json")]


def reach_of(module: str, name: str) -> set[str]:
    for part in vars(code).values():
        getattr(part, "cache_clear", lambda: None)()
    reach = code._Reach(module.partition(".")[0])
    reach.definition(module, name)
    return set(reach.parts)


def test_of_an_import_of_several_names_only_the_used_one_counts(package: Path) -> None:
    (package / "steps.py").write_text(
        "from my_stale import method as mine, unrelated\n\n"
        "def run(context, params):\n    return mine\n"
    )
    (package / "unrelated.py").write_text("A = 1\n")
    reached = reach_of("my_stale.steps", "run")
    assert "my_stale.method" in reached
    assert "my_stale.unrelated" not in reached


# Kinds.


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"needs": {"data": ("a",)}}, "'data' of 'needs' is no pin and no model"),
        ({"needs": {"m": ("a",), "p": ("b",)}}, ""),
        ({"model": ModelOutput(folder="gone")}, "none of its outputs"),
        ({"model": ModelOutput(folder="model", inherits="p")}, "no input of sort 'model'"),
        ({"model": ModelOutput(folder="model", inherits="m")}, ""),
        ({"model": ModelOutput(folder="model")}, ""),
    ],
)
def test_what_a_kind_declares_fits_together(declared: dict[str, Any], words: str) -> None:
    inputs: Any = {"m": "model", "p": "pin", "data": "step"}

    def made() -> StepKind:
        return StepKind("a/b", 1, NoParams, print, inputs, ("model",), **declared)

    if words:
        with pytest.raises(ValueError, match=words):
            made()
    else:
        assert made().name == "a/b"


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"steps": 1000, "batch": 10_000}, False),
        ({"steps": 1001, "batch": 10_000}, True),
        ({"epochs": 3, "steps": 1001, "examples": 10_000, "batch": 2}, True),
        ({"steps": 1001.0, "batch": 10_000}, False),  # no count
        ({"steps": 10_000_000}, False),
        ({"rate": 10_000_000, "batch": 10_000_000}, False),
    ],
)
def test_draws_are_bounded_by_the_largest_of_each(values: dict[str, Any], fault: bool) -> None:
    assert bool(draws_fault(values)) is fault


def test_modules_of_kinds_are_imported_where_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[str, str]] = []
    monkeypatch.setattr(registry, "_import", lambda name, where: called.append((name, where)))
    monkeypatch.setattr(registry, "step_modules", lambda file: ("one.two",))
    monkeypatch.setattr(registry.sys, "path", ["first"])
    monkeypatch.setenv(registry.MODULES_VARIABLE, f" a.b,, {tmp_path} ,{tmp_path}")
    assert registry.load_registry() is REGISTRY
    assert [name for name, _ in called] == ["a.b", "one.two", "one.two"]
    assert registry.sys.path == ["first", str(tmp_path)]


# Failures.


def cured(value: Any) -> StepKind:
    return StepKind(
        "a/cured", 1, NoParams, print, {}, (),
        lowers_memory=(Remedy("rows", lambda params: value, "slower"),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "typed"),
    [(None, None), (4, "rows=4"), (0, "rows=0"), (False, "rows=false"), ("half", "rows=half")],
)
def test_a_cure_can_be_typed(monkeypatch: pytest.MonkeyPatch, value: Any, typed: Any) -> None:
    own = Registry()
    own.add(cured(value))
    monkeypatch.setattr("kit.engine.failures.load_registry", lambda: own)
    step = msgspec.structs.replace(STEP, kind="a/cured")
    failure = failure_of(MemoryError("no"), home=Path("/h"), step=step.id)
    made = step_failed(failure, step, Path("/log"))
    said = f"--set train.{typed} (slower); run fewer" if typed else "run fewer steps at once"
    assert made.next_step.startswith(said)
    assert "see /log; mend" in made.next_step


def test_other_processes_on_a_gpu_are_said_and_no_words_twice() -> None:
    text = "CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has a total capacity of 9.00 GiB "
    text += "of which 2.00 GiB is free. Process 42 has 5.00 GiB memory in use"
    made = step_failed(
        failure_of(RuntimeError(text), home=Path("/h"), step=ON_GPU.id), ON_GPU, None
    )
    assert made.what == "the GPU is out of memory: it asked for 1.00 GiB more"
    assert made.why == (
        "2.00 GiB of 9.00 GiB of the GPU was free; process 42 holds 5.00 GiB; the plan expected "
        "70 GB a GPU"
    )
    assert "end the other processes on the GPU" in made.next_step
    assert Shortage(gpu=False, free="1 GiB").facts() == "1 GiB was free"
    assert Shortage(gpu=False).facts() == ""


def test_the_figures_of_a_shortage_are_the_innermost() -> None:
    outer = RuntimeError("std::bad_alloc")
    outer.__cause__ = MemoryError("Unable to allocate 7 GiB for an array")
    short = shortage_of(outer)
    assert short is not None
    assert short.asked == "7 GiB"
    assert list(_chain(outer)) == [outer, outer.__cause__]
    assert shortage_of(ValueError("plain")) is None


# The next step on a GPU.


def waiting(folder: Path, **changes: Any) -> tuple[Runner, Plan]:
    """``a`` and ``b`` are on the CPU; ``g`` reads both, ``h`` reads b, both on a GPU."""
    plan = plan_of_graph({"a": [], "b": [], "g": ["a", "b"], "h": ["b"], "t": ["g", "h"]})
    on_gpu = [
        msgspec.structs.replace(one, resources=Resources(gpus=1)) if one.id in "gh" else one
        for one in plan.instances
    ]
    plan = msgspec.structs.replace(plan, instances=on_gpu)
    made = Runner(
        plan, store=Store(folder), executor=FakeExecutor, pins=NoPins(), logs=folder,  # type: ignore[arg-type]
        emit=lambda item: None,
    )  # fmt: skip
    return made, plan


@pytest.mark.parametrize(
    ("running", "finished", "states", "there", "following"),
    [
        ("", "", {}, "", None),
        ("a", "", {}, "", None),  # b is not begun
        ("ab", "", {}, "", "g"),
        ("b", "", {}, "", "h"),
        ("b", "a", {}, "", "g"),
        ("ab", "", {"g": "blocked"}, "", "h"),
        ("ab", "", {}, "g", "h"),  # the store has it
        ("ab", "", {"g": "blocked", "h": "blocked"}, "", None),
    ],
)
def test_the_gpu_step_whose_inputs_are_all_being_made(
    tmp_path: Path, running: str, finished: str, states: dict[str, Any], there: str,
    following: str | None,
) -> None:  # fmt: skip
    made, plan = waiting(tmp_path)
    for id in running:
        made._running[plan.by_id[id].key] = [plan.by_id[id]]
    for id in finished:
        made._digests[id] = "d"
    made.outcome.states.update(states)
    made._looked = {plan.by_id[id].key: False for id in there}
    found = made._next_on_gpu()
    assert (found and found.id) == following
    made._ready.append(plan.by_id["h"])
    ready = made._next_on_gpu()
    assert ready is not None
    assert ready.id == "h"  # what is ready comes first


def test_a_ready_step_whose_like_is_running_is_not_next(tmp_path: Path) -> None:
    made, plan = waiting(tmp_path)
    made._ready.append(plan.by_id["h"])
    made._running[plan.by_id["h"].key] = [plan.by_id["h"]]
    assert made._next_on_gpu() is None


def test_a_cached_step_is_said_with_its_seconds(tmp_path: Path) -> None:
    plan = plan_of_graph({"a": [], "b": ["a"]})
    first = Harness(plan, tmp_path)
    again = Harness(plan, tmp_path)
    assert again.named("step-cached") == ["a", "b"]
    said = [item for item in again.events if item["event"] == "step-cached"]
    assert [item["seconds"] for item in said] == [
        first.outcome.entries[id].seconds for id in ("a", "b")
    ]
    assert again.made == 0  # nothing runs, so no executor is made
