"""Micro-batch x accumulation x GPUs is the published batch, or there is no plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.engine.batch import Split, fit, solve
from kit.engine.environment import Machine
from kit.engine.preflight import preflight
from kit.engine.registry import REGISTRY
from kit.engine.store import Store
from kit.errors import InvalidInput, Preflight, UsageError
from kit.manifest.types import Resources
from kit.results.plan import Plan
from tests.engine.conftest import MACHINE, ToyPins, manifest, plan_of
from tests.engine.toy import MakeParams


@given(batch=st.integers(1, 4096), world=st.integers(1, 64), micro=st.integers(1, 128))
def test_the_product_is_the_batch_or_it_is_refused(batch: int, world: int, micro: int) -> None:
    if batch % world:
        with pytest.raises(Preflight):
            solve(batch, world=world, largest_micro=micro)
        return
    split = solve(batch, world=world, largest_micro=micro)
    assert split.world * split.micro_batch * split.accumulation == batch
    assert 1 <= split.micro_batch <= micro
    # No larger micro-batch that fits divides the share.
    share = batch // world
    assert not [n for n in range(split.micro_batch + 1, min(micro, share) + 1) if share % n == 0]


@pytest.mark.parametrize(
    ("batch", "world", "micro", "expected"),
    [
        (64, 8, 8, (8, 1)),  # the published setting of an 8-GPU machine
        (64, 4, 8, (8, 2)),
        (64, 4, 16, (16, 1)),
        (64, 1, 8, (8, 8)),
        (64, 16, 8, (4, 1)),
        (60, 4, 8, (5, 3)),  # 15 a GPU: 5 fits, 15 does not
        (7, 1, 4, (1, 7)),
    ],
)
def test_known_splits(batch: int, world: int, micro: int, expected: tuple[int, int]) -> None:
    split = solve(batch, world=world, largest_micro=micro)
    assert (split.micro_batch, split.accumulation) == expected


def test_what_does_not_divide_says_what_does() -> None:
    with pytest.raises(Preflight, match="64 cannot be shared evenly by 6 GPUs") as caught:
        solve(64, world=6, largest_micro=8, where="train")
    assert "1, 2, 4 (--gpus N)" in caught.value.next_step
    assert caught.value.where == "train"


@pytest.mark.parametrize("wrong", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_numbers_below_one(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInput, match="at least 1"):
        solve(wrong[0], world=wrong[1], largest_micro=wrong[2])


def shared(
    gpus: int = 8, world: int | None = None, machine: Machine = MACHINE, **params: Any
) -> Plan:
    """A plan of one step that shares a batch of 64."""
    values = {"global_batch": 64, "micro_batch": 8, "accumulation": 1, **params}
    profile = {"summary": "s", "set": {"train": values}, "resources": {"train": {"gpus": gpus}}}
    steps = [{"id": "train", "kind": "toy/shared", "version": 1}]
    made = manifest(steps=steps, results="train", profiles={"mini": profile})
    return plan_of(made, gpus=world, machine=machine)


def split_of(plan: Plan) -> tuple[int, int, int, str]:
    one = plan.instances[0]
    return (
        one.params["micro_batch"],
        one.params["accumulation"],
        one.resources.gpus,
        one.environment["world"],
    )


def test_as_published() -> None:
    plan = shared()
    assert split_of(plan) == (8, 1, 8, "8x8x1")
    assert plan.notes == []


def test_fewer_gpus_keep_the_batch_and_change_the_key() -> None:
    plan = shared(world=2)
    assert split_of(plan) == (8, 4, 2, "2x8x4")
    assert plan.instances[0].key != shared().instances[0].key
    assert plan.instances[0].resources.minutes == 4.0  # a quarter of the GPUs
    assert "2 GPUs instead of 8" in plan.notes[0]
    assert "64 = micro-batch 8 x accumulation 4 x 2 GPUs" in plan.notes[0]
    assert not plan.modified


def test_the_split_can_be_left_to_the_kit() -> None:
    assert split_of(shared(accumulation=0, micro_batch=3)) == (2, 4, 8, "8x2x4")


def test_wrong_numbers_in_a_manifest() -> None:
    with pytest.raises(InvalidInput, match=r"8 x accumulation 2 x 8 GPU.* = 128") as caught:
        shared(accumulation=2)
    assert "--set train.micro_batch=8 --set train.accumulation=1" in caught.value.next_step


def test_gpus_that_do_not_divide() -> None:
    with pytest.raises(Preflight, match="cannot be shared evenly by 5 GPUs") as caught:
        shared(world=5)
    assert caught.value.where == "train"


def test_on_one_cpu_the_world_is_one() -> None:
    assert split_of(shared(gpus=0, accumulation=8)) == (8, 8, 0, "1x8x8")


def test_gpus_that_would_change_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="--gpus 4 would change nothing"):
        shared(gpus=0, accumulation=8, world=4)


def test_kinds_without_a_batch_are_left_alone() -> None:
    params, resources = MakeParams(seed=1), Resources(gpus=8)
    kind = REGISTRY.get("toy/make")
    assert fit(kind, params, resources, gpus=2, where="x") == (params, resources, "")


def test_too_few_gpus_are_offered_a_split(tmp_path: Path) -> None:
    with pytest.raises(Preflight, match=r"needs 8 GPUs, this machine has 2") as caught:
        preflight(shared(), Store(tmp_path), ToyPins(tmp_path), 2)
    assert "--gpus 2 shares its batch otherwise, 64 = " in caught.value.next_step
    with pytest.raises(Preflight) as caught:
        preflight(shared(), Store(tmp_path), ToyPins(tmp_path), 3)
    assert "--gpus" not in caught.value.next_step


def test_words() -> None:
    split = Split(world=4, micro_batch=8, accumulation=2)
    assert split.words() == "64 = micro-batch 8 x accumulation 2 x 4 GPUs"
