"""Time the passes of a TAR outer step at full shape, sharded over the GPUs of one host.

    torchrun --standalone --nproc_per_node 4 -m benchmarks.measure_zero3 OUT.json \\
        [--variant plain] [--passes 20] [--layers 32]

Random weights in the shape of Llama-3-8B. Every pass of each kind is timed alone, after a wait for
all GPUs; a computed outer step is 64 adversary steps, 16 tamper-resistance passes and 1 retain
pass. Variants run one a process group, each with its own record.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM

from kit.lm.standin import read_shape
from kit.methods.tar.batches import Counted, counted_batches
from kit.methods.tar.objectives import language_model_loss, tamper_resistance_loss
from kit.methods.tar.outer_loop import outer_spec
from kit.methods.tar.presets import preset
from kit.methods.tar.settings import TarSettings
from kit.train.batching import Example
from kit.train.engine import Precision
from kit.train.optimizers import AdamW
from kit.train.zero3 import OFFLOADED, Zero3, Zero3Settings

GIB = 1024**3
PARAMETERS = 7.505e9
"""In matrix products; a pass forward and backward takes six operations a parameter and token."""

SETTINGS = {
    "plain": Zero3Settings(outer_state=OFFLOADED),
    "leaf": Zero3Settings(outer_state=OFFLOADED, leaf_layers=True, prefetch=10**9),
    "leaf, bf16": Zero3Settings(
        outer_state=OFFLOADED,
        leaf_layers=True,
        prefetch=10**9,
        communication="bfloat16",
        live=10**11,
        reuse=10**11,
    ),
}


def build(layers: int) -> LlamaForCausalLM:
    """Random bf16 weights, the same in every process."""
    config = LlamaConfig(**{**read_shape("llama-3-8b").config, "num_hidden_layers": layers})
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model = model.to_empty(device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.02, generator=generator)
        else:
            parameter.data.fill_(1.0)
    rotary = model.model.rotary_emb
    fresh = type(rotary)(config).inv_freq.to("cuda")
    rotary.inv_freq = fresh
    rotary.original_inv_freq = fresh.clone()
    return model


def batch(engine: Any, rows: int, seed: int, most: int) -> list[Counted]:
    """Rows of 256 random tokens over all processes."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 128000, (rows, 256), generator=generator).tolist()
    examples = [Example(f"{seed}-{i}", tuple(row), 1) for i, row in enumerate(ids)]
    return counted_batches(examples, engine, rows=most, pad_id=128009, width=256)


def timed(what: Callable[[], object], count: int, warm: int) -> list[float]:
    """Seconds of each of ``count`` calls, the slowest GPU's."""
    seconds = []
    for number in range(warm + count):
        dist.barrier()
        torch.cuda.synchronize()
        start = time.perf_counter()
        what()
        torch.cuda.synchronize()
        taken = torch.tensor(time.perf_counter() - start, device="cuda")
        dist.all_reduce(taken, dist.ReduceOp.MAX)
        if number >= warm:
            seconds.append(float(taken))
    return seconds


def summary(seconds: list[float], tokens: int) -> dict[str, Any]:
    """What a record keeps of a kind of pass."""
    median = statistics.median(seconds)
    rate = 6 * PARAMETERS * tokens / median / dist.get_world_size()
    peak = torch.tensor(torch.cuda.max_memory_allocated() / GIB, device="cuda")
    dist.all_reduce(peak, dist.ReduceOp.MAX)
    return {
        "seconds": [round(s, 4) for s in seconds],
        "median": round(median, 4),
        "tflops_a_gpu": round(rate / 1e12, 1),
        "peak_gib": round(float(peak), 2),
    }


def adversary(engine: Zero3, data: list[Counted]) -> None:
    """An inner step."""
    engine.accumulate(language_model_loss, data)
    engine.step()


def tamper(engine: Zero3, settings: TarSettings, data: list[Counted]) -> None:
    """A tamper-resistance pass, collected."""
    engine.accumulate(partial(_tamper, settings), data)
    engine.collect("tr", 0.5)


def _tamper(settings: TarSettings, model: Any, counted: Counted) -> torch.Tensor:
    return tamper_resistance_loss(model, counted, settings)


def kernels(what: Callable[[], object]) -> dict[str, float]:
    """Where one call's time goes on this GPU: seconds of kernels by sort, and of the whole call."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    start = time.perf_counter()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        what()
        torch.cuda.synchronize()
        whole = time.perf_counter() - start
    spent = {"communication": 0.0, "matrix products and attention": 0.0, "other": 0.0}
    launches = 0
    for event in profiled.key_averages():
        name = event.key.lower()
        seconds = event.self_device_time_total / 1e6
        launches += event.count
        if "nccl" in name:
            spent["communication"] += seconds
        elif any(part in name for part in ("gemm", "nvjet", "cutlass", "flash", "fmha")):
            spent["matrix products and attention"] += seconds
        else:
            spent["other"] += seconds
    return {k: round(v, 4) for k, v in spent.items()} | {
        "whole call, profiled": round(whole, 4),
        "launches": launches,
    }


def measure(variant: str, *, layers: int, passes: int, most: int) -> dict[str, Any]:
    """Everything about one variant."""
    settings = preset("released-code", "bio")
    model = build(layers)
    if variant != "plain":
        for layer in model.model.layers:
            for part in (layer.mlp, layer.input_layernorm, layer.post_attention_layernorm):
                part.compile()
    engine = Zero3(model, outer_spec(settings), Precision("bfloat16"), settings=SETTINGS[variant])
    held_out = batch(engine, 64, 1, most)
    record: dict[str, Any] = {"variant": variant, "settings": vars(SETTINGS[variant])}
    snapshot = engine.snapshot("cpu")
    with engine.inner(AdamW(2e-5, 0.01)):
        for rows in (32, 64):
            data = batch(engine, rows, rows, most)
            torch.cuda.reset_peak_memory_stats()
            record[f"adversary {rows} x 256"] = summary(
                timed(lambda d=data: adversary(engine, d), passes, 3), rows * 256
            )
        record["kernels of an adversary step, 64 x 256"] = kernels(lambda: adversary(engine, data))
        torch.cuda.reset_peak_memory_stats()
        record["tamper resistance 64 x 256"] = summary(
            timed(lambda: tamper(engine, settings, held_out), passes, 3), 64 * 256
        )
    record["restore"] = timed(lambda: engine.restore(snapshot), 3, 1)
    record["snapshot to the machine's memory"] = timed(lambda: engine.snapshot("cpu"), 3, 1)
    engine.add_collected("tr")
    torch.cuda.reset_peak_memory_stats()
    record["outer update"] = timed(engine.step, 1, 0)
    record["outer update, peak GiB"] = torch.cuda.max_memory_allocated() / GIB
    for rows in (32, 64):
        record[f"outer step, inner batch {rows}, computed"] = round(
            64 * record[f"adversary {rows} x 256"]["median"]
            + 16 * record["tamper resistance 64 x 256"]["median"],
            2,
        )
    return record


def main() -> None:
    """Measure one variant and write its record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--variant", choices=list(SETTINGS), default="plain")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--rows", type=int, default=16, help="most rows in a forward pass")
    chosen = parser.parse_args()
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    started = time.perf_counter()
    record = measure(chosen.variant, layers=chosen.layers, passes=chosen.passes, most=chosen.rows)
    record |= {
        "layers": chosen.layers,
        "rows a forward pass": chosen.rows,
        "gpus": dist.get_world_size(),
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "seconds in all": round(time.perf_counter() - started, 1),
    }
    if dist.get_rank() == 0:
        chosen.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(
            json.dumps(
                {
                    k: v["median"] if isinstance(v, dict) and "median" in v else v
                    for k, v in record.items()
                }
            )
        )
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
