"""Measure 200-step prefix training at full shape: forward passes, memory, distance from the floor.

    python benchmarks/measure_training.py OUT.json [--steps 200]

Random weights in the shape of Llama-3-8B, stand-in data of the documented lengths. One JSON record.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from kit.lm.load import load_tokenizer
from kit.lm.standin import load_random_model, make_folder, read_shape
from kit.methods.defensive_tokens import standin
from kit.methods.defensive_tokens.attacks import PAPER
from kit.methods.defensive_tokens.chat import LLAMA3
from kit.methods.defensive_tokens.examples import Encoding, encode_items
from kit.methods.defensive_tokens.layouts import BEFORE_BOS
from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.prefix_training.loss import accumulate
from kit.methods.defensive_tokens.prefix_training.state import start
from kit.methods.defensive_tokens.prefix_training.tuning import train_prefix
from kit.methods.defensive_tokens.recipe import Recipe, plan_run
from kit.methods.defensive_tokens.self_label import EMPTY_TURN, SelfLabel
from kit.methods.defensive_tokens.struq import AS_REPORTED
from kit.train.batching import Example

NAIVE, FASTEST = "padded, 4 x 4", "packed, compiled"
PEAK = 790e12
PARAMETERS = 7.5e9
GIB = 1024**3


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def matmul_rate() -> float:
    """TFLOP/s of an 8192^3 bf16 product, the median of 20."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(25):
        torch.cuda.synchronize()
        before = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        times.append(time.perf_counter() - before)
    return 2 * 8192**3 / float(np.median(times[5:])) / 1e12


def reported_recipe(steps: int) -> Recipe:
    """The follow-up's data and labels, as far as they decide what is computed."""
    return Recipe(
        mixture=AS_REPORTED,
        encoding=Encoding(layout=BEFORE_BOS, end_truncated=True, max_length=2048),
        training=PrefixTraining(steps),
        empty_data=EMPTY_TURN,
    )


def make_examples(folder: Path, steps: int) -> list[list[Example]]:
    """The examples of each step, through the same code as a real run."""
    tokenizer = load_tokenizer(folder)
    recipe = reported_recipe(steps)
    samples = standin.standin_samples(51760, 0)
    plan = plan_run(samples, standin.standin_attack_texts(), PAPER, recipe)
    counts = standin.answer_lengths(len(plan.samples), 0)
    rng = np.random.default_rng(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(rng.integers(1000, 120000, count).tolist())

    labels = {
        s.id: SelfLabel(
            s.id, s.instruction, "x", tuple(rng.integers(1000, 120000, n).tolist()), "stop"
        )
        for s, n in zip(plan.samples.values(), counts, strict=True)
    }
    encoded = encode_items(
        [plan.items[i] for i in plan.schedule.order],
        plan.samples,
        labels,
        tokenizer,
        LLAMA3,
        recipe.encoding,
        n=5,
        vocabulary_size=128256,
    )
    return [encoded[i * 16 : i * 16 + 16] for i in range(steps)]


def measure(
    name: str,
    model: Any,
    batches: Sequence[Sequence[Example]],
    config: PrefixTraining,
    first: torch.Tensor,
    *,
    warm: int = 3,
) -> dict[str, Any]:
    """Seconds a step, floor and peak memory of one way of training."""
    torch.cuda.empty_cache()
    torch.cuda.synchronize()
    before = time.perf_counter()
    # Shortest and longest steps, so that no new shape is met in the timed part.
    by_size = sorted(batches, key=lambda b: sum(len(e.ids) for e in b))
    warming = [by_size[0], by_size[-1], by_size[len(by_size) // 2]][:warm]
    train_prefix(
        model, start(first), lambda i: warming[i], replace(config, steps=warm), pad_id=128002
    )
    torch.cuda.synchronize()
    warm_s = time.perf_counter() - before
    torch.cuda.reset_peak_memory_stats()
    ends = [time.perf_counter()]
    run = train_prefix(
        model,
        start(first),
        lambda i: batches[i],
        config,
        pad_id=128002,
        on_step=lambda step, loss: ends.append(time.perf_counter()),
    )
    torch.cuda.synchronize()
    seconds = time.perf_counter() - ends[0]
    tokens = sum(len(e.ids) for b in batches[: config.steps] for e in b)
    floor = 4 * PARAMETERS * tokens / PEAK
    row = {
        "name": name,
        "steps": config.steps,
        "tokens_per_step": round(tokens / config.steps, 1),
        "seconds": round(seconds, 3),
        "seconds_per_step": round(seconds / config.steps, 4),
        "median_step": round(float(np.median(np.diff(ends))), 4),
        "floor_seconds": round(floor, 3),
        "over_floor": round(seconds / floor, 3),
        "tflops": round(4 * PARAMETERS * tokens / seconds / 1e12, 1),
        "warm_up_seconds": round(warm_s, 1),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "reserved_gb": round(torch.cuda.max_memory_reserved() / 1e9, 2),
        "last_loss": run.losses[-1],
        "step_tokens": [sum(len(e.ids) for e in b) for b in batches[: config.steps]],
        "step_seconds": [round(float(t), 4) for t in np.diff(ends)],
    }
    shown = {key: value for key, value in row.items() if not key.startswith("step_")}
    print(json.dumps(shown), flush=True)
    return row


def gradients(
    model: Any, batch: Sequence[Example], first: torch.Tensor, *, exact: bool
) -> dict[str, float]:
    """How far the gradients of four examples differ between forward passes, relative to their norm.

    With ``exact`` also from the fp32 gradient: what bf16 rounding does to any of them.
    """
    batch = batch[:4]

    def of(**changes: Any) -> tuple[float, torch.Tensor]:
        prefix = torch.nn.Parameter(first.cuda().float())
        config = replace(PrefixTraining(1, accumulation=1), **changes)
        loss = accumulate(model, prefix, batch, config, pad_id=128002)
        assert prefix.grad is not None
        return loss, prefix.grad

    _, base = of(forward_rows=4)
    truth = exact_gradient(model, batch, first) if exact else None
    out = {}
    for name, changes in {
        "padded, 4 rows": {"forward_rows": 4},
        "padded, 1 row": {"forward_rows": 1},
        "packed": {"forward": "packed"},
        "packed, low memory": {"forward": "packed", "low_memory": True},
        "packed, compiled": {"forward": "packed", "compile": True},
    }.items():
        out[f"{name}: loss"], grad = of(**changes)
        out[f"{name}: difference from padded"] = float((grad - base).norm() / base.norm())
        if truth is not None:
            out[f"{name}: difference from fp32"] = float((grad - truth).norm() / truth.norm())
    print(json.dumps(out), flush=True)
    return out


def exact_gradient(model: Any, batch: Sequence[Example], first: torch.Tensor) -> torch.Tensor:
    """The fp32 gradient of one step, padded."""
    wide = copy.deepcopy(model).float()
    prefix = torch.nn.Parameter(first.cuda().float())
    config = PrefixTraining(1, forward_rows=1, accumulation=1)
    accumulate(wide, prefix, batch, config, pad_id=128002)
    assert prefix.grad is not None
    return prefix.grad


def checksum(model: Any) -> list[float]:
    """Sums of the weights' bits: equal before and after if nothing moved."""
    return [int(p.view(torch.int16).long().sum()) for p in model.parameters()]


def profile(
    model: Any, batch: Sequence[Example], config: PrefixTraining, first: torch.Tensor
) -> str:
    """The kernels of one step by time."""
    prefix = torch.nn.Parameter(first.cuda().float())
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    ) as prof:
        accumulate(model, prefix, batch, config, pad_id=128002)
        torch.cuda.synchronize()
    table: str = prof.key_averages().table(
        sort_by="self_cuda_time_total", row_limit=30, max_name_column_width=60
    )
    return table


def ratio(rows: Sequence[dict[str, Any]]) -> float | None:
    """Seconds a token, padded over packed and compiled; ``None`` if one was not measured."""
    per_token = {
        row["name"]: row["seconds"] / (row["tokens_per_step"] * row["steps"]) for row in rows
    }
    if not {NAIVE, FASTEST} <= per_token.keys():
        return None
    return round(per_token[NAIVE] / per_token[FASTEST], 2)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    # Not "--only": torch's compiler reads that word from sys.argv and writes its value into code.
    parser.add_argument("--ways", default="", help="names of rows, separated by semicolons")
    parser.add_argument("--brief", action="store_true", help="no fp32 gradient, no profile")
    args = parser.parse_args()
    clock = time.perf_counter()
    record: dict[str, Any] = {"machine": machine(), "matmul_tflops": round(matmul_rate(), 1)}
    with tempfile.TemporaryDirectory() as folder:
        make_folder(folder, read_shape("llama-3-8b"), words=standin.VOCABULARY)
        batches = make_examples(Path(folder), args.steps)
        record["data_seconds"] = round(time.perf_counter() - clock, 1)
        clock = time.perf_counter()
        model = load_random_model(folder, device="cuda")
        first = standin.released_prefix(4096)
    torch.cuda.synchronize()
    record["model_seconds"] = round(time.perf_counter() - clock, 1)
    record["model_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    record["labels_per_example"] = float(np.mean([e.labels for b in batches for e in b]))
    print(json.dumps(record), flush=True)
    before = checksum(model)
    base = PrefixTraining(args.steps)
    packed = replace(base, forward="packed")
    few = min(args.steps, 6 if args.brief else 12)
    plans = {
        NAIVE: replace(base, forward_rows=4, steps=few),
        "padded, 16 rows": replace(base, steps=few),
        "packed": replace(packed, steps=few),
        "packed, low memory": replace(packed, low_memory=True, steps=few),
        "packed, low memory, compiled": replace(packed, low_memory=True, compile=True, steps=few),
        FASTEST: replace(packed, compile=True),
    }
    record["rows"] = []
    for name, config in plans.items():
        if args.ways and name not in args.ways.split(";"):
            continue
        try:
            record["rows"].append(measure(name, model, batches, config, first))
        except Exception as error:
            print(name, "failed:", repr(error)[:2000], flush=True)
        args.out.write_text(json.dumps(record) + "\n")
    record["naive_over_packed"] = ratio(record["rows"])
    print("naive over packed:", record["naive_over_packed"], flush=True)
    record["gradients"] = gradients(model, batches[0], first, exact=not args.brief)
    record["weights_unchanged"] = checksum(model) == before
    args.out.write_text(json.dumps(record) + "\n")
    if not args.brief:
        print(profile(model, batches[0], plans[FASTEST], first))


if __name__ == "__main__":
    main()
