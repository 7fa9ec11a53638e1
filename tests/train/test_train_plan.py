"""The plan of a sharded run: memory as measured, batches as published, refusals in sentences."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kit.train.plan import GlobalBatches, Machine, ModelShape, Plan, _count, solve
from kit.train.residence import frozen
from tests.train.tiny import llama, tokens

LLAMA3_8B = ModelShape(8_030_261_248, 32, 4096, 14336, 128256)
BIO = GlobalBatches(adversary=32, held_out=64, retain=64, width=256)
H100 = Machine(4, 79.2, 512)
RECORD = (
    Path(__file__).resolve().parents[2]
    / "benchmarks/zero3-passes-leaf-layers-4xh100-torch2.11.0-2026-11-28.json"
)


def counted(plan, batches):
    return _count(
        plan, LLAMA3_8B, H100, batches, bucket=500_000_000, live=1_000_000_000, chunk=4096
    )


@pytest.mark.parametrize("rows", [32, 64])
def test_memory_is_within_15_percent_of_the_record(rows):
    """As it was measured: nothing of the outer state, no reference, and no collected gradient."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    plan = Plan(16, {}, False, "offloaded", "offloaded", "cpu")
    estimated = counted(plan, replace(BIO, adversary=rows)).peak_gib
    local = 4 * LLAMA3_8B.parameters / 4 / 1024**3
    assert estimated["inner step"] - local == pytest.approx(
        record[f"adversary {rows} x 256"]["peak_gib"], rel=0.15
    )
    assert estimated["tamper-resistance pass"] == pytest.approx(
        record["tamper resistance 64 x 256"]["peak_gib"], rel=0.15
    )
    assert estimated["outer update"] == pytest.approx(record["outer update, peak GiB"], rel=0.15)


def test_the_published_batches_fit_four_h100():
    plan = solve(LLAMA3_8B, H100, BIO)
    assert plan.highest <= 79.2
    for name in ("adversary", "held_out", "retain"):
        computed = 4 * plan.rows * plan.passes[name]
        assert computed >= getattr(BIO, name)
        assert computed - 4 * plan.rows < getattr(BIO, name)


def test_less_memory_costs_speed_and_never_a_row():
    plans = [solve(LLAMA3_8B, Machine(4, gib, 1024), BIO) for gib in (141, 79.2, 62, 50)]
    assert [p.highest for p in plans] == sorted((p.highest for p in plans), reverse=True)
    assert (plans[0].outer_state, plans[0].checkpointing) == ("resident", False)
    assert plans[-1].outer_state == "offloaded"
    assert plans[-1].checkpointing


def test_what_cannot_be_met_is_refused_with_what_is_missing():
    with pytest.raises(ValueError, match=r"2 GPUs of 40 GiB.*still takes .* use more GPUs"):
        solve(LLAMA3_8B, Machine(2, 40, 512), BIO)
    with pytest.raises(ValueError, match=r"GiB of the machine's memory, which has 16"):
        solve(LLAMA3_8B, Machine(4, 62, 16), BIO)
    with pytest.raises(ValueError, match="adversary batch of 32 leaves some of 64 GPUs idle"):
        solve(LLAMA3_8B, Machine(64, 80, 512), BIO)


@pytest.mark.parametrize("residence", ["resident", "offloaded"])
def test_a_frozen_reference_computes_the_same_wherever_it_is(residence):
    expected = llama().eval()(input_ids=tokens(1)).logits
    model = frozen(llama(), residence, "cpu")
    output = model(input_ids=tokens(1)).logits
    assert torch.equal(output, expected)
    assert not output.requires_grad
    if residence == "offloaded":
        assert {p.device.type for p in model.parameters()} == {"meta"}
    with pytest.raises(ValueError, match="not 'somewhere'"):
        frozen(llama(), "somewhere", "cpu")
