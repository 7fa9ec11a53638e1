"""The exactness tests of the sharded engines on GPUs of one host, over NCCL, with no compiler."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kit.train.engines import FSDP, ZERO3
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
