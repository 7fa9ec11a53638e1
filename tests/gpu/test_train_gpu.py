"""The training engine on a GPU: weights come back bit for bit, runs go on, bf16 learns."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.train.checkpoints import CheckpointFolder
from kit.train.engine import Precision, Progress
from kit.train.optimizers import AdamW, Muon, OptimizerSpec, ScheduleFreeAdamW
from kit.train.single_process import SingleProcess
from tests.train.tiny import llama, mean_loss, same, tokens

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]
BF16 = Precision("bfloat16")


def engine_of(spec: OptimizerSpec, precision: Precision = BF16, seed: int = 0) -> SingleProcess:
    return SingleProcess(llama(seed, attention_dropout=0.2).cuda(), spec, precision)


def train(engine: SingleProcess, start: int, stop: int) -> list[float]:
    losses = []
    for step in range(start, stop):
        losses.append(float(engine.accumulate(mean_loss, [tokens(step % 2).cuda()])))
        engine.clip(1.0)
        engine.step()
    return losses


@pytest.mark.parametrize("device", [None, "cpu"])
def test_restored_weights_give_equal_outputs(device: str | None) -> None:
    engine = engine_of(ScheduleFreeAdamW(0.01, 0.0))
    train(engine, 0, 3)
    before = copy.deepcopy(engine.model)

    def outputs() -> torch.Tensor:
        with engine.evaluating("training") as model:
            return model(input_ids=tokens(9).cuda()).logits  # type: ignore[no-any-return]

    expected = outputs()
    kept = engine.snapshot(device)
    with engine.inner(AdamW(0.01, 0.01)):
        train(engine, 3, 6)
        assert not torch.equal(outputs(), expected)
    engine.restore(kept)
    assert same(engine.model, before)
    assert torch.equal(outputs(), expected)


@pytest.mark.parametrize(
    "spec",
    [AdamW(0.01, 0.01), ScheduleFreeAdamW(0.01, 0.0), Muon(0.01, 0.01)],
    ids=lambda spec: spec.name,
)
def test_resumed_equals_uninterrupted(tmp_path: Path, spec: Any) -> None:
    """Dropout draws from the GPU's own generator, which is in the checkpoint."""
    whole, first, resumed = engine_of(spec), engine_of(spec), engine_of(spec, seed=3)
    torch.manual_seed(1)
    expected = train(whole, 0, 6)
    torch.manual_seed(1)
    train(first, 0, 3)
    first.save(CheckpointFolder(tmp_path), Progress(3))
    progress = resumed.resume(CheckpointFolder(tmp_path))
    assert progress is not None
    assert train(resumed, 3, 6) == expected[3:]
    assert same(resumed.model, whole.model)


def test_bf16_learns_with_fp32_masters() -> None:
    engine = engine_of(AdamW(0.01, 0.0))
    losses = train(engine, 0, 40)
    assert {p.dtype for p in engine.model.parameters()} == {torch.float32}
    assert losses[-1] < 0.5 * losses[0]
