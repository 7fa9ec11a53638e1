"""Plans of random manifests: counts, order, matching of inputs, stability of keys."""

from __future__ import annotations

import importlib
import math
import pkgutil
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kit.engine
from kit.engine.registry import load_registry
from kit.errors import InvalidInput
from kit.results.plan import Plan
from tests.engine.conftest import manifest, plan_of

AXES = ("x", "y", "z")


@st.composite
def chains(draw: st.DrawFn) -> dict[str, Any]:
    """make over some axes, mix over at least these, and a table; values in any order."""
    matrix: dict[str, list[Any]] = {}
    for axis in AXES:
        values = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True))
        records = draw(st.booleans())
        matrix[axis] = [{"id": f"r{v}", "seed": v} if records else v for v in values]
    make = draw(st.lists(st.sampled_from(AXES), unique=True, min_size=1))
    more = [axis for axis in AXES if axis not in make and draw(st.booleans())]
    axis = make[0]
    seed = f"${{{axis}.seed}}" if isinstance(matrix[axis][0], dict) else f"${{{axis}}}"
    return {"matrix": matrix, "make": make, "mix": make + more, "seed": seed}


def planned(chain: dict[str, Any], **matrix: Any) -> Plan:
    steps = [
        {"id": "make", "kind": "toy/make", "version": 2, "each": chain["make"]},
        {
            "id": "mix",
            "kind": "toy/mix",
            "version": 1,
            "each": chain["mix"],
            "inputs": {"data": {"step": "make"}},
        },
        {"id": "table", "kind": "toy/table", "version": 1, "inputs": {"numbers": {"step": "mix"}}},
    ]
    profile = {
        "summary": "s",
        "matrix": {**chain["matrix"], **matrix},
        "set": {"make": {"seed": chain["seed"]}},
    }
    return plan_of(manifest(steps=steps, profiles={"mini": profile}))


def count(chain: dict[str, Any], step: str) -> int:
    return math.prod(len(chain["matrix"][axis]) for axis in chain[step])


@settings(max_examples=80, deadline=None)
@given(chains())
def test_every_combination_once_and_inputs_before_readers(chain: dict[str, Any]) -> None:
    plan = planned(chain)
    ids = [one.id for one in plan.instances]
    assert len(set(ids)) == len(ids) == count(chain, "make") + count(chain, "mix") + 1
    place = {id: n for n, id in enumerate(ids)}
    assert all(place[up] < place[one.id] for one in plan.instances for up in one.upstream())


@settings(max_examples=80, deadline=None)
@given(chains())
def test_inputs_agree_on_shared_axes(chain: dict[str, Any]) -> None:
    plan = planned(chain)
    for one in plan.instances:
        if one.step != "mix":
            continue
        (source,) = one.steps["data"].instances
        for axis, value in plan.by_id[source].axes.items():
            assert one.axes[axis] == value
    assert len(plan.by_id["table"].steps["numbers"].instances) == count(chain, "mix")


@settings(max_examples=60, deadline=None)
@given(chains(), st.randoms(use_true_random=False))
def test_the_order_of_values_changes_no_key(chain: dict[str, Any], chance: Any) -> None:
    shuffled = {axis: chance.sample(v, len(v)) for axis, v in chain["matrix"].items()}
    before = {one.id: one.key for one in planned(chain).instances}
    after = {one.id: one.key for one in planned(chain, **shuffled).instances}
    assert before == after


@settings(max_examples=60, deadline=None)
@given(chains())
def test_instances_of_different_seeds_have_different_keys(chain: dict[str, Any]) -> None:
    seeds: dict[str, set[int]] = {}
    for one in planned(chain).instances:
        if one.step == "make":
            seeds.setdefault(one.key, set()).add(one.params["seed"])
    assert all(len(found) == 1 for found in seeds.values())
    assert all(a != b for a, b in pairwise(sorted(seeds)))


# The wall: nothing of the engine imports a heavy library.


def modules() -> list[str]:
    found = [info.name for info in pkgutil.iter_modules(kit.engine.__path__)]
    commands = ["plan", "run", "step", "rehearse", "reproduce", "planning"]
    return [f"kit.engine.{name}" for name in found] + [f"kit.cli.{name}" for name in commands]


@pytest.mark.parametrize("name", modules())
def test_every_module_has_a_purpose(name: str) -> None:
    assert importlib.import_module(name).__doc__


def test_no_module_imports_a_heavy_library() -> None:
    heavy = "{'torch', 'transformers', 'vllm', 'deepspeed', 'numpy', 'scipy'}"
    program = (
        f"import importlib, sys\nfor name in {modules()!r}: importlib.import_module(name)\n"
        f"assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_step_modules_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_STEPS_MODULES", "tests.engine.toy, kit.steps,")
    assert "toy/make" in load_registry().names()
    monkeypatch.setenv("KIT_STEPS_MODULES", "tests.engine.absent")
    with pytest.raises(InvalidInput, match=r"'tests.engine.absent' cannot be imported"):
        load_registry()
