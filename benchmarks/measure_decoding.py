"""Measure greedy decoding of a small model by the transformers backend.

    python -m benchmarks.measure_decoding OUT.json

Random weights in the shape of Qwen2-0.5B, bf16, batches of equal prompts of 100 tokens. Three ways:
the plain loop with a cache that grows, the step in fixed shapes run by the host, and the same step
recorded and replayed. A stretch of 64 tokens is the difference between 65 and 129 tokens. The GPU's
own time for a step comes from a profile of 64 tokens less one of a single token.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure_training import machine
from kit.lm.generate import TransformersBackend
from kit.lm.standin import load_random_model, make_folder, read_shape
from kit.lm.static_decode import STRETCH, StepGraphs

PROMPT = 100
PLAIN_STEPS = 24
SORTS = {
    "products": ("gemm", "cutlass", "nvjet", "gemv", "splitk", "cublas"),
    "attention": ("fmha", "attention", "flash"),
    "copies": ("memcpy", "copy", "cat", "index"),
}


def backend(model: Any, way: str) -> TransformersBackend:
    """A backend that decodes in this way."""
    made = TransformersBackend(model, 0, max_batch=1024, max_tokens=1 << 20, static=way != "plain")
    if way == "by the host":
        made._graphs = StepGraphs(torch.device("cuda", torch.cuda.current_device()))
        made._graphs.usable = False
    return made


def seconds(work: Callable[[], Any]) -> float:
    """Of the work, the GPU's included."""
    torch.cuda.synchronize()
    before = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - before


def kernels(work: Callable[[], Any]) -> Counter[str]:
    """Milliseconds of the GPU by sort of kernel, and how many were run."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    total: Counter[str] = Counter()
    for event in profile.key_averages():
        spent = event.self_device_time_total / 1e3
        if not spent:
            continue
        name = event.key.lower()
        sort = next((s for s, words in SORTS.items() if any(w in name for w in words)), "other")
        total[sort] += spent
        total["launches"] += event.count
        total[f"= {event.key[:70]}"] += spent
    return total


def measure(model: Any, rows: int, way: str, *, profiled: bool) -> dict[str, Any]:
    """A way of decoding a batch of so many rows."""
    made = backend(model, way)
    prompts = [[3 + (row + column) % 1000 for column in range(PROMPT)] for row in range(rows)]

    def decode(tokens: int) -> list[Any]:
        return made.generate(prompts, max_new_tokens=tokens, stop_ids=[])

    first, steps = (1 + STRETCH, STRETCH) if way == "recorded" else (1, PLAIN_STEPS)
    decode(first)
    torch.cuda.reset_peak_memory_stats()
    short, long = seconds(lambda: decode(first)), seconds(lambda: decode(first + steps))
    row: dict[str, Any] = {
        "way": way,
        "rows": rows,
        "ms_per_step": round((long - short) / steps * 1e3, 3),
        "seconds_of_first_tokens": round(short, 3),
        "first_tokens": first,
        "peak_reserved_gb": round(torch.cuda.max_memory_reserved() / 2**30, 3),
    }
    if made._graphs is not None:
        row["recorded"] = made._graphs.recorded
    if profiled:
        steps = STRETCH if way == "recorded" else 8
        spent = kernels(lambda: decode(1 + steps))
        spent.subtract(kernels(lambda: decode(1)))
        each = {name: round(value / steps, 4) for name, value in spent.most_common() if value > 0}
        sorts = {name: value for name, value in each.items() if not name.startswith("= ")}
        row["launches_per_step"] = sorts.pop("launches", 0)
        row["gpu_ms_per_step"] = round(sum(sorts.values()), 3)
        row["gpu_ms_by_sort"] = sorts
        row["largest_kernels"] = {k[2:]: v for k, v in each.items() if k.startswith("= ")}
        row["largest_kernels"] = dict(list(row["largest_kernels"].items())[:8])
    return row


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", default="qwen2-0.5b")
    parser.add_argument("--rows", type=int, default=512)
    settings = parser.parse_args()
    record: dict[str, Any] = {"machine": machine(), "shape": settings.shape, "rows": []}
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        folder = make_folder(name, read_shape(settings.shape))
        model = load_random_model(folder, device="cuda")
        record["weights_gb"] = round(sum(p.nbytes for p in model.parameters()) / 1e9, 3)
        for rows, way, profiled in (
            (settings.rows, "recorded", True),
            (settings.rows, "plain", True),
            (settings.rows, "by the host", False),
            (1, "recorded", False),
        ):
            row = measure(model, rows, way, profiled=profiled)
            record["rows"].append(row)
            print({key: value for key, value in row.items() if key != "largest_kernels"})
            settings.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
