"""The exactness tests of ZeRO-3 on GPUs of one host, over NCCL, with no compiler."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.train.sharded import assert_equal_runs, failed_checks, launch, single

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("processes", [2, 4])
def test_gpus_equal_one(tmp_path: Path, processes: int) -> None:
    if torch.cuda.device_count() < processes:
        pytest.skip(f"{torch.cuda.device_count()} GPUs here, {processes} wanted")
    ranks = launch(tmp_path, "cuda", processes)
    alone = single(tmp_path / "alone", "cuda")
    assert_equal_runs(ranks, alone, "run/")
    assert_equal_runs(ranks, alone, "tar/")
    assert failed_checks(ranks) == []
