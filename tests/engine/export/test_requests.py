"""Names and requests: harmless characters, different for different keys, the plan's needs."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.engine.export.snakefile import Ask, ask, file_name, require_architecture
from kit.errors import UsageError
from kit.manifest.types import Resources
from kit.results.plan import Plan
from tests.engine.conftest import manifest, plan_of, relabelled

LABELS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=90).filter(
    lambda text: re.fullmatch(r"[^\s,=\[\]]+", text) is not None
)


@given(st.lists(LABELS, min_size=1, max_size=6, unique=True))
def test_file_names_are_harmless_and_distinct(labels: list[str]) -> None:
    profile = {
        "summary": "s",
        "matrix": {"x": [{"id": f"n{n}", "seed": n} for n in range(len(labels))]},
        "set": {"make": {"seed": "${x.seed}"}},
    }
    steps = [
        {"id": "make", "kind": "toy/make", "version": 2, "each": ["x"]},
        {"id": "t", "kind": "toy/table", "version": 1, "inputs": {"numbers": {"step": "make"}}},
    ]
    made = plan_of(manifest(steps=steps, results="t", profiles={"mini": profile}))
    plan = relabelled(made, labels)
    names = [file_name(one) for one in plan.instances]
    assert len(set(names)) == len(labels) + 1
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)
        assert len(name) <= 80


def test_file_names_can_be_read() -> None:
    plan = plan_of()
    assert re.fullmatch(r"seed-0-[0-9a-f]{12}", file_name(plan.by_id["make[seed=0]"]))
    assert re.fullmatch(r"one-[0-9a-f]{12}", file_name(plan.by_id["table"]))


def test_requests_come_from_the_plan() -> None:
    assert ask(Resources(memory_gb=1.5, minutes=3)) == Ask(0, 1536 + 256, 16, 1)
    assert ask(Resources(gpus=2, memory_gb=32, minutes=0.5)) == Ask(2, 32768 + 256, 11, 8)


def on_gpu(arch: Any) -> Plan:
    plan = plan_of()
    one = msgspec.structs.replace(plan.instances[0], environment={"gpu_arch": arch})
    return msgspec.structs.replace(plan, instances=[one, *plan.instances[1:]])


def test_gpu_steps_need_an_architecture() -> None:
    with pytest.raises(UsageError, match="nobody said for which GPUs"):
        require_architecture(on_gpu("unknown"))
    require_architecture(on_gpu("sm_90"))
    require_architecture(on_gpu(None))
