"""The exactness tests of the sharded engines on GPUs of one host, over NCCL, with no compiler."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kit.lm.load import load_model
from kit.train.engines import FSDP, ZERO3
from kit.train.residence import OFFLOADED, frozen
from tests.lm.tiny_world import tiny_llama
from tests.train.sharded import assert_equal_runs, failed_checks, launch, single

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("engine", [ZERO3, FSDP])
@pytest.mark.parametrize("processes", [2, 4])
def test_gpus_equal_one(tmp_path: Path, processes: int, engine: str) -> None:
    if torch.cuda.device_count() < processes:
        pytest.skip(f"{torch.cuda.device_count()} GPUs here, {processes} wanted")
    ranks = launch(tmp_path, "cuda", processes, engine)
    alone = single(tmp_path / "alone", "cuda")
    assert_equal_runs(ranks, alone, "run/")
    assert_equal_runs(ranks, alone, "tar/")
    assert_equal_runs(ranks, alone, "attack/")
    assert failed_checks(ranks) == []


@pytest.mark.parametrize("number", [0, 1])
def test_a_process_loads_onto_its_own_gpu(tmp_path: Path, number: int) -> None:
    if torch.cuda.device_count() <= number:
        pytest.skip(f"{torch.cuda.device_count()} GPUs here")
    tiny_llama(64).save_pretrained(tmp_path / "model")
    ids = torch.arange(8)[None]
    with torch.cuda.device(number):
        resident = load_model(tmp_path / "model", device="cuda")
        where = {t.device for t in (*resident.parameters(), *resident.buffers())}
        assert where == {torch.device("cuda", number)}
        offloaded = frozen(load_model(tmp_path / "model", device="cuda"), OFFLOADED, "cuda")
        with torch.no_grad():
            moved = offloaded(ids.to("cuda")).logits
            assert moved.device == torch.device("cuda", number)
            assert torch.equal(moved, resident(ids.to("cuda")).logits)
