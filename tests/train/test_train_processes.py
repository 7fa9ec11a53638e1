"""One process equals two at a fixed global batch; accelerate reduces, over gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kit.train.checkpoints import CheckpointFolder
from kit.train.single_process import SingleProcess
from tests.train import two_processes
from tests.train.tiny import llama, same

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Results of both ranks, and the folder of their checkpoint."""
    folder = tmp_path_factory.mktemp("two")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *launch, "-m", "tests.train.two_processes", str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [load_file(folder / f"rank{rank}.safetensors") for rank in (0, 1)], folder


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    engine = SingleProcess(llama(), two_processes.OUTER)
    return two_processes.run(engine, tmp_path_factory.mktemp("single"))


def test_losses_gradients_and_weights_are_equal(two, single):
    for result in two[0]:
        assert set(result) == set(single)
        for name, expected in single.items():
            torch.testing.assert_close(result[name], expected, rtol=1e-6, atol=1e-6, msg=name)


def test_both_processes_hold_the_same_bits(two):
    first, second = two[0]
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_checkpoint_of_two_goes_on_in_one(two):
    """Both generators are in it; a single process takes the first."""
    folder = CheckpointFolder(two[1] / "checkpoints")
    assert len(folder.read(2).values["random"]) == 2
    engine = SingleProcess(llama(1), two_processes.OUTER)
    assert engine.resume(folder).step == 2
    with engine.evaluating() as model:
        weights = {f"x/{n}": p for n, p in model.named_parameters()}
        assert all(torch.equal(p, two[0][0][n]) for n, p in weights.items())
    assert not same(engine.model, llama(1))
