"""The plan's estimates term by term, in bytes and seconds counted by hand, and how it chooses."""

from __future__ import annotations

from dataclasses import replace
from math import nextafter

import pytest

from kit.train.costs import SCORES, ModelShape, Setting, batch_seconds, held, passing
from kit.train.plan import Attack, GlobalBatches, Machine, Plan, count, solve

GIB = 2**30
SHAPE = ModelShape(9_000_000_000, 30, 4000, 11_000, 90_000)
WORK = GlobalBatches(
    adversary=32, held_out=48, retain=40, width=500, inner_steps=7, tampers=3, held_out_texts=2
)
CHOSEN = Setting(4, 20, "fsdp", checkpointing=True)
WANTED = Setting(4, 1, "fsdp", compiled=True, communication="bfloat16")


def in_gib(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value / GIB, 2) for name, value in values.items()}


def test_memory_and_seconds_of_an_outer_step_are_the_sums_of_what_is_there() -> None:
    local = SHAPE.parameters / 4
    always = held(SHAPE, CHOSEN) + 2 * SHAPE.parameters  # the reference model in bf16
    fp32 = 4 * local
    reference = (8 * 500, 12 * 1000, 10 * 500)  # tokens of 32, 2 x 48 and 40 rows on 4 GPUs
    adversary, held_out, retain = (passing(SHAPE, CHOSEN, tokens) for tokens in reference)
    states = 2 * 10 * 500 * 31 * 4000  # bf16: the embeddings and every layer
    plan = count(CHOSEN, SHAPE, WORK)
    assert plan.peak_gib == in_gib({
        # Two moments of the outer optimizer, the snapshot, what was collected, two inner moments.
        "inner step": always + 2 * fp32 + fp32 + fp32 + 2 * fp32 + adversary,
        "tamper-resistance pass": always + 2 * fp32 + fp32 + fp32 + 2 * fp32 + held_out,
        "retain pass": always + 2 * fp32 + fp32 + retain + states,
        "outer update": always + 2 * fp32 + 2 * (2 * 90_000 * 4000) / 4,
    })  # fmt: skip
    seconds = [batch_seconds(SHAPE, CHOSEN, *batch) for batch in ((32, 500), (48, 1000), (40, 500))]
    assert plan.seconds == round(7 * seconds[0] + 3 * seconds[1] + seconds[2] * (1 + 1 / 3), 2)
    assert plan.host_gib == 0
    assert plan.passes == {"adversary": 1, "held_out": 1, "retain": 1}


def test_an_attack_keeps_adams_moments_and_is_measured_by_the_whole_model() -> None:
    always = held(SHAPE, CHOSEN) + 8 * SHAPE.parameters / 4
    step = always + passing(SHAPE, CHOSEN, 8 * 300)
    whole = 2 * SHAPE.parameters + 4 * SCORES
    for work, extra in (
        (Attack(32, 300), whole),
        (Attack(32, 300, True), whole),
        (Attack(32, 300, False), 0),
    ):
        plan = count(CHOSEN, SHAPE, work)
        assert plan.peak_gib == in_gib({"training step": step, "measuring": always + extra})
        assert plan.seconds == round(batch_seconds(SHAPE, CHOSEN, 32, 300), 2)
        assert (plan.host_gib, plan.passes) == (0, {"training": 1})


def test_what_is_kept_in_the_machines_memory_is_told_to_hundredths() -> None:
    for name, where, size in (
        ("snapshot", "cpu", 4), ("outer_state", "offloaded", 8),
        ("collected", "offloaded", 4), ("reference", "offloaded", 2 * 4),
    ):  # fmt: skip
        plan = count(replace(CHOSEN, **{name: where}), SHAPE, WORK)
        assert plan.host_gib == round(size * SHAPE.parameters / GIB, 2), name


def test_an_outer_step_is_the_published_one_unless_it_is_said_otherwise() -> None:
    """64 inner steps, a tamper-resistance pass behind every fourth, a text a row (TAR)."""
    said = GlobalBatches(32, 48, 40, 500, inner_steps=64, tampers=64 // 4, held_out_texts=1)
    assert GlobalBatches(32, 48, 40, 500) == said
    assert Plan(CHOSEN, peak_gib={"a": 3.0, "b": 5.0, "c": 4.0}).highest == 5.0


def test_a_pass_takes_every_row_of_the_largest_batch_where_there_is_room() -> None:
    plan = solve(SHAPE, Machine(4, 4000, 4000), WORK, WANTED)
    assert (plan.setting.rows, set(plan.passes.values())) == (12, {1})
    assert plan.setting.weights_stay
    assert not plan.setting.checkpointing
    assert (plan.setting.snapshot, plan.host_gib) == ("cuda", 0)
    for name in ("weights_stay", "checkpointing"):
        for value in (False, True):
            held_to = solve(SHAPE, Machine(4, 4000, 4000), WORK, WANTED, {name: value})
            assert getattr(held_to.setting, name) is value
    plain = solve(SHAPE, Machine(4, 4000, 4000), Attack(4, 300), Setting(1, 1), {"rows": 1})
    assert (plain.setting.gpus, plain.setting.weights_stay) == (4, False)


def test_a_plan_that_just_fits_is_a_plan() -> None:
    """97 % of a GPU and all of the machine's memory can be used."""
    fixed = {
        "rows": 4, "checkpointing": True, "weights_stay": False, "outer_state": "offloaded",
        "collected": "offloaded", "reference": "offloaded", "snapshot": "cpu",
    }  # fmt: skip
    made = count(replace(WANTED, **fixed), SHAPE, WORK)
    gib = made.highest / 0.97
    while 0.97 * gib < made.highest:
        gib = nextafter(gib, 1e9)
    while 0.97 * gib > made.highest:
        gib = nextafter(gib, 0)
    if 0.97 * gib != made.highest:
        gib = nextafter(gib, 1e9)
    assert solve(SHAPE, Machine(4, gib, made.host_gib), WORK, WANTED, fixed) == made
    with pytest.raises(ValueError, match="of the machine's memory, which has"):
        solve(SHAPE, Machine(4, gib, made.host_gib - 0.01), WORK, WANTED, fixed)
    for less in (gib - 0.01, made.highest):
        with pytest.raises(ValueError, match=rf"the {_phase(made)} still takes .* use more GPUs"):
            solve(SHAPE, Machine(4, less, made.host_gib), WORK, WANTED, fixed)


def _phase(plan: Plan) -> str:
    return max(plan.peak_gib, key=lambda name: plan.peak_gib[name])
