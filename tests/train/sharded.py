"""Starts `sharded_processes.py` in processes, and compares what they leave with one process."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from kit.train.engines import SINGLE, ZERO3
from kit.train.single_process import SingleProcess
from tests.methods.tar.conftest import build_model
from tests.train import sharded_processes, two_processes
from tests.train.tiny import llama

ROOT = Path(__file__).resolve().parents[2]


def launch(folder, device, processes, engine=ZERO3):
    """What each rank found out, by name."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    called = ["-m", "tests.train.sharded_processes", str(folder), device, engine]
    hidden = {} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    # As in the container: no compiler for GPUs.
    environment = {k: v for k, v in os.environ.items() if k not in ("CUDA_HOME", "CUDA_PATH")}
    done = subprocess.run(
        [sys.executable, *start, *called],
        cwd=ROOT,
        env=environment | hidden | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    (folder / "log.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return [load_file(folder / f"rank{rank}.safetensors") for rank in range(processes)]


def single(folder, device):
    """The same in this process alone."""
    engine = SingleProcess(llama().to(device), two_processes.OUTER)
    result = {f"run/{n}": t for n, t in two_processes.run(engine, folder / "checkpoints").items()}
    model = build_model(0).float().to(device)
    engine = SingleProcess(model, sharded_processes.TAR_OUTER)
    result |= {f"tar/{n}": t for n, t in sharded_processes.tar(engine).items()}
    attacked = sharded_processes.attacks(SINGLE, device)
    result |= {f"attack/{n}": t for n, t in attacked.items()}
    return {n: t.cpu() for n, t in result.items()}


def assert_equal_runs(ranks, expected, prefix):
    """Losses, gradients and weights to 1e-6, relative or absolute."""
    wanted = {n: t for n, t in expected.items() if n.startswith(prefix)}
    assert wanted
    for result in ranks:
        assert {n for n in result if n.startswith(prefix)} == set(wanted)
        for name, value in wanted.items():
            torch.testing.assert_close(
                result[name].to(value.dtype), value, rtol=1e-6, atol=1e-6, msg=partial(_named, name)
            )


def _named(name, message):
    return f"{name}: {message}"


def failed_checks(ranks):
    """Names of the checks that a rank saw fail; an empty run has none of them."""
    checks = {
        (rank, n): bool(t) for rank, r in enumerate(ranks) for n, t in r.items() if "check/" in n
    }
    assert len(checks) >= 20 * len(ranks)
    return sorted(f"{n} in process {rank}" for (rank, n), held in checks.items() if not held)
