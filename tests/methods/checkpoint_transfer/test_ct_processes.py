"""At a fixed global batch two processes have the gradient of one; without averaging they do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.methods.checkpoint_transfer import two_processes

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("two")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    module = "tests.methods.checkpoint_transfer.two_processes"
    done = subprocess.run(
        [sys.executable, *launch, "-m", module, str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [load_file(folder / f"rank{rank}.safetensors") for rank in (0, 1)]


def test_gradients_and_weights_equal_those_of_one_process(
    two: list[dict[str, torch.Tensor]],
) -> None:
    single = two_processes.run(None)
    for result in two:
        assert result.keys() == single.keys()
        for name, expected in single.items():
            close = {"rtol": 1e-4, "atol": 1e-6 if "gradient" in name else 1e-4}
            torch.testing.assert_close(result[name], expected, msg=name, **close)
    assert any(float(value.abs().max()) > 1e-3 for n, value in single.items() if "gradient" in n)
