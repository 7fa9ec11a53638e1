"""Measure reading and aligning two 128,256 x 4,096 embedding matrices.

    python benchmarks/measure_alignment.py OUT.json

Reads bf16 shards whose pages were dropped from the cache, fits in fp64, and
compares a smaller case with scipy.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure_training import machine
from kit.lm.files import read_embeddings
from kit.lm.standin import make_folder, random_embeddings, read_shape, write_embeddings
from kit.methods.defensive_tokens.procrustes import orthogonal_map


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    torch.cuda.synchronize()
    before = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return round(time.perf_counter() - before, 3), result


def forget(folder: Path) -> None:
    """Drop a folder's shards from the page cache."""
    for file in folder.glob("*.safetensors"):
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def main() -> None:
    """Measure and write."""
    record: dict[str, Any] = {"machine": machine()}
    torch.linalg.svd(torch.randn(64, 64, device="cuda", dtype=torch.float64))
    with tempfile.TemporaryDirectory() as name:
        folders = []
        for seed in (0, 1):
            folder = make_folder(Path(name) / str(seed), read_shape("llama-3-8b"))
            write_embeddings(folder, random_embeddings(folder, seed, device="cuda"))
            folders.append(folder)

        def read(device: str) -> list[torch.Tensor]:
            with ThreadPoolExecutor(2) as pool:
                return list(pool.map(lambda f: read_embeddings(f, device=device), folders))

        for cold in (True, False):
            for device in ("cpu", "cuda"):
                if cold:
                    for folder in folders:
                        forget(folder)
                key = f"read_{'cold' if cold else 'warm'}_{device}_seconds"
                record[key], _ = timed(lambda device=device: [m.sum() for m in read(device)])
        matrices = read("cuda")
        for turn in ("first", "second"):
            record[f"svd_{turn}_seconds"], fitted = timed(
                lambda: orthogonal_map(*matrices, device="cuda")
            )
        record["svd_orthogonality_error"] = fitted.orthogonality_error
        record["svd_relative_residual"] = fitted.relative_residual
        record["svd_condition"] = float(fitted.singular_values[0] / fitted.singular_values[-1])
    record["scipy"] = scipy_equality()
    print(json.dumps(record, indent=1))
    Path(sys.argv[1]).write_text(json.dumps(record, indent=1) + "\n")


def scipy_equality() -> dict[str, float]:
    """Largest difference from scipy at 20,000 x 512, well and badly conditioned."""
    from scipy.linalg import orthogonal_procrustes

    torch.manual_seed(0)
    out = {}
    x = torch.randn(20000, 512, dtype=torch.float64)
    for name, spread in (("random", 0.0), ("condition 1e6", 6.0)):
        scales = torch.logspace(0, -spread / 2, 512, dtype=torch.float64)
        a, b = x * scales, (x + 0.1 * torch.randn_like(x)) * scales
        wanted = torch.from_numpy(orthogonal_procrustes(a.numpy(), b.numpy())[0])
        ours = orthogonal_map(a, b, device="cuda").matrix
        out[f"{name}, svd"] = float((ours - wanted).abs().max())
    return out


if __name__ == "__main__":
    main()
