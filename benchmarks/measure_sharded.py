"""Time the passes of a TAR outer step at full shape, sharded over the GPUs of one host.

    torchrun --standalone --nproc_per_node 2 -m benchmarks.measure_sharded OUT.json \\
        --variant "zero-3 plain" [--passes 20] [--layers 32] [--rows 16] [--outer-steps 1]

Random weights in the shape of a model, with fewer layers where asked. Every pass of each kind is
timed alone, after a wait for all GPUs. With ``--outer-steps`` whole outer steps of the outer loop
itself are timed behind them: snapshot, 64 inner steps, 16 tamper-resistance passes, restoring, the
retain pass and the update. One variant a process group, each with its own record.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from kit.lm.standin import read_shape
from kit.methods.tar.adversaries import AdversaryType
from kit.methods.tar.batches import Counted, counted_batches
from kit.methods.tar.objectives import language_model_loss, retain_loss, tamper_resistance_loss
from kit.methods.tar.outer_loop import Batching, OuterLoop, outer_spec
from kit.methods.tar.presets import preset
from kit.methods.tar.settings import TarSettings
from kit.methods.tar.streams import tar_streams
from kit.train.batching import Example
from kit.train.engine import Precision, Snapshot
from kit.train.fsdp import Fsdp, FsdpSettings
from kit.train.optimizers import AdamW, OptimizerSpec
from kit.train.residence import OFFLOADED, RESIDENCES, RESIDENT, frozen
from kit.train.sharded import Sharded
from kit.train.zero3 import Zero3, Zero3Settings

GIB = 1024**3
TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}
FREE = {"live": 10**11, "reuse": 10**11}
VARIANTS: dict[str, Zero3Settings | FsdpSettings] = {
    "zero-3 plain": Zero3Settings(),
    "zero-3 leaf layers": Zero3Settings(leaf_layers=True, prefetch=10**9),
    "zero-3 leaf layers compiled": Zero3Settings(leaf_layers=True, prefetch=10**9, compiled=True),
    "zero-3 leaf layers compiled, bf16 sums, weights stay": Zero3Settings(
        leaf_layers=True, prefetch=10**9, compiled=True, communication="bfloat16", **FREE
    ),
    "fsdp": FsdpSettings(),
    "fsdp compiled": FsdpSettings(compiled=True),
    "fsdp compiled, bf16 sums": FsdpSettings(compiled=True, communication="bfloat16"),
    "fsdp compiled, weights stay": FsdpSettings(compiled=True, gather_twice=False),
    "fsdp compiled, weights stay, bf16 sums": FsdpSettings(
        compiled=True, gather_twice=False, communication="bfloat16"
    ),
}


def build(shape: str, layers: int, device: str, *, tiny: bool) -> PreTrainedModel:
    """Random bf16 weights, the same in every process."""
    values = {**read_shape(shape).config, "num_hidden_layers": layers}
    if tiny:
        values |= {k: v for k, v in TINY.items() if k in values}
    config = AutoConfig.for_model(**values)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model = model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.02, generator=generator)
        else:
            parameter.data.fill_(float(name.endswith("weight")))
    rotary: Any = model.base_model.rotary_emb
    fresh = type(rotary)(config).inv_freq.to(device)
    rotary.inv_freq = fresh
    rotary.original_inv_freq = fresh.clone()
    return model


def texts(rows: int, seed: int, width: int, vocabulary: int) -> list[Example]:
    """Rows of random tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocabulary - 300, (rows, width), generator=generator).tolist()
    return [Example(f"{seed}-{i}", tuple(row), 1) for i, row in enumerate(ids)]


class Bench:
    """One variant: the engine, its batches, and a clock.

    Attributes:
        engine: In training.
        settings: Of TAR: one adversary, on forget data alone.
        record: What was measured so far.
    """

    def __init__(self, chosen: argparse.Namespace) -> None:
        """Build the model and shard it."""
        self.chosen = chosen
        self.width = 16 if chosen.tiny else chosen.width
        self.settings = replace(
            preset("released-code", "bio"),
            adversaries=(AdversaryType("forget", "forget"),),
            forget_batch=chosen.inner_rows,
            held_out_batch=chosen.global_rows,
            retain_batch=chosen.global_rows,
            width=self.width,
            inner_steps=chosen.inner_steps or (8 if chosen.tiny else 64),
        )
        placed = replace(
            VARIANTS[chosen.variant],
            outer_state=OFFLOADED,
            collected=chosen.collected,
            checkpointing=chosen.checkpointing,
        )
        model = build(chosen.shape, chosen.layers, chosen.device, tiny=chosen.tiny)
        self.vocabulary = int(model.config.vocab_size)
        self.products = sum(p.numel() for p in model.parameters() if p.ndim > 1)
        self.products -= cast("Any", model.get_input_embeddings()).weight.numel()
        spec: OptimizerSpec = outer_spec(self.settings)
        if chosen.attack_only:
            spec = AdamW(2e-5, 0.01)
        low = Precision("bfloat16")
        self.engine: Sharded
        if isinstance(placed, FsdpSettings):
            self.engine = Fsdp(model, spec, low, settings=placed, device=chosen.device)
        else:
            assert isinstance(placed, Zero3Settings)
            self.engine = Zero3(model, spec, low, settings=placed, device=chosen.device)
        self.record: dict[str, Any] = {"variant": chosen.variant, "settings": asdict(placed)}

    def batch(self, rows: int, seed: int) -> list[Counted]:
        """This process's micro-batches of a global batch."""
        examples = texts(rows, seed, self.width, self.vocabulary)
        return counted_batches(
            examples, self.engine, rows=self.chosen.rows, pad_id=self.vocabulary - 1
        )

    def timed(self, what: Callable[[], object], count: int, warm: int = 0) -> list[float]:
        """Seconds of each of ``count`` calls, the slowest process's."""
        seconds = []
        for number in range(warm + count):
            dist.barrier()
            self.wait()
            start = time.perf_counter()
            what()
            self.wait()
            taken = torch.tensor(time.perf_counter() - start, device=self.engine.device)
            dist.all_reduce(taken, dist.ReduceOp.MAX)
            if number >= warm:
                seconds.append(round(float(taken), 4))
        return seconds

    def passes(self, name: str, what: Callable[[], object], rows: int, count: int) -> None:
        """Time a kind of pass and keep what was measured."""
        self.clear_peak()
        seconds = self.timed(what, count, warm=2)
        median = statistics.median(seconds)
        operations = 6 * self.products * rows * self.width / median / self.engine.world_size
        self.record[name] = {
            "seconds": seconds,
            "median": round(median, 4),
            "tflops_a_gpu": round(operations / 1e12, 1),
            "peak_gib": self.peak(),
        }
        self.say(name, self.record[name] | {"seconds": f"{len(seconds)} passes"})

    def wait(self) -> None:
        """For this process's GPU."""
        if self.chosen.device == "cuda":
            torch.cuda.synchronize()

    def clear_peak(self) -> None:
        """Of this process's GPU."""
        if self.chosen.device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> float:
        """GiB allocated on the fullest GPU since :meth:`clear_peak`."""
        most = torch.cuda.max_memory_allocated() if self.chosen.device == "cuda" else 0
        peak = torch.tensor(most / GIB, device=self.engine.device)
        dist.all_reduce(peak, dist.ReduceOp.MAX)
        return round(float(peak), 2)

    def say(self, name: str, value: object) -> None:
        """Print from one process, and keep what there is so far on disk."""
        if self.engine.rank == 0:
            print(f"{self.chosen.variant}: {name}: {value}", flush=True)
            text = json.dumps(self.record, indent=1) + "\n"
            self.chosen.out.write_text(text, encoding="utf-8")

    def adversary(self, data: list[Counted]) -> None:
        """An inner step."""
        self.engine.accumulate(language_model_loss, data)
        self.engine.step()

    def tamper(self, data: list[Counted]) -> None:
        """A tamper-resistance pass, collected."""
        self.engine.accumulate(partial(_tamper, self.settings), data)
        self.engine.collect("tr", 0.5)

    def attack_steps(self) -> None:
        """Steps of a fine-tuning attack on the whole model, with the engine's own optimizer."""
        data = self.batch(self.chosen.global_rows, 1)
        name = f"attack step {self.chosen.global_rows} x {self.width}"
        count = self.chosen.attack_steps or self.chosen.passes
        self.passes(name, lambda: self.adversary(data), self.chosen.global_rows, count)

    def all_passes(self) -> None:
        """The passes of an attack, one kind after the other."""
        held_out = self.batch(self.chosen.global_rows, 1)
        kept: list[Snapshot] = []
        if self.chosen.details:
            self.record["snapshot to the machine's memory"] = self.timed(
                lambda: kept.append(self.engine.snapshot("cpu")), 2
            )
        with self.engine.inner(AdamW(2e-5, 0.01)):
            for rows, count in (
                (self.chosen.inner_rows, self.chosen.passes),
                (self.chosen.global_rows, self.chosen.attack_steps or self.chosen.passes),
            ):
                data = self.batch(rows, rows)
                self.passes(
                    f"adversary {rows} x {self.width}",
                    lambda d=data: self.adversary(d),
                    rows,
                    count,
                )
            if self.chosen.details:
                name = f"kernels of an adversary step, {self.chosen.global_rows} x {self.width}"
                self.record[name] = self.kernels(lambda: self.adversary(data))
            self.passes(
                f"tamper resistance {self.chosen.global_rows} x {self.width}",
                lambda: self.tamper(held_out),
                self.chosen.global_rows,
                self.chosen.passes,
            )
        if self.chosen.details:
            self.record["restore"] = self.timed(lambda: self.engine.restore(kept[0]), 2)
        self.engine.add_collected("tr")
        self.clear_peak()
        self.record["outer update"] = self.timed(self.engine.step, 1)
        self.record["outer update, peak GiB"] = self.peak()
        tamper = self.record[f"tamper resistance {self.chosen.global_rows} x {self.width}"]
        for rows in (self.chosen.inner_rows, self.chosen.global_rows):
            step = self.record[f"adversary {rows} x {self.width}"]
            self.record[f"64 + 16 passes, inner batch {rows}, computed"] = round(
                64 * step["median"] + 16 * tamper["median"], 2
            )
        self.say("computed", {k: v for k, v in self.record.items() if "computed" in k})

    def reference(self) -> PreTrainedModel:
        """The frozen original."""
        model = build(
            self.chosen.shape, self.chosen.layers, self.chosen.device, tiny=self.chosen.tiny
        )
        return frozen(model, self.chosen.reference, self.engine.device)

    def retain_passes(self, reference: PreTrainedModel, count: int) -> None:
        """The pass at the weights that an attack begins from, with the frozen reference model."""
        retain = partial(_retain, reference, self.settings)
        batch = self.batch(self.chosen.global_rows, 2)
        self.passes(
            f"retain {self.chosen.global_rows} x {self.width}",
            lambda: self.engine.accumulate(retain, batch),
            self.chosen.global_rows,
            count,
        )
        self.engine.zero_gradient()

    def outer_steps(self, reference: PreTrainedModel, count: int) -> None:
        """Whole outer steps of the outer loop."""
        data = [texts(640, seed, self.width, self.vocabulary) for seed in range(3)]
        loop = OuterLoop(
            self.engine,
            reference,
            self.settings,
            tar_streams(
                self.settings,
                adversary={"forget": data[0]},
                held_out=data[1],
                retain=data[2],
                seed=0,
            ),
            Batching(self.chosen.rows, self.vocabulary - 1),
            seed=0,
            snapshot_device="cpu",
        )
        self.clear_peak()
        done: list[dict[str, Any]] = []
        for number in range(count):
            seconds = self.timed(lambda n=number: done.append(_outer(loop, n)), 1)
            done[-1] |= {"seconds": seconds[0], "peak_gib": self.peak()}
            self.record["outer steps"] = done
            self.say("outer step", done[-1])

    def kernels(self, what: Callable[[], object]) -> dict[str, float]:
        """Where one call's time goes on this GPU: seconds of kernels by sort."""
        if self.chosen.device != "cuda":
            return {}
        from torch.profiler import ProfilerActivity, profile

        self.wait()
        start = time.perf_counter()
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            what()
            self.wait()
            whole = time.perf_counter() - start
        spent = {"communication": 0.0, "matrix products and attention": 0.0, "other": 0.0}
        launches = 0
        for event in profiled.key_averages():
            name = event.key.lower()
            launches += event.count
            products = any(part in name for part in ("gemm", "nvjet", "cutlass", "flash", "fmha"))
            sort = "matrix products and attention" if products else "other"
            spent["communication" if "nccl" in name else sort] += event.self_device_time_total / 1e6
        rounded = {k: round(v, 4) for k, v in spent.items()}
        return rounded | {"whole call, profiled": round(whole, 4), "launches": launches}


def _tamper(settings: TarSettings, model: Any, counted: Counted) -> torch.Tensor:
    return tamper_resistance_loss(model, counted, settings)


def _retain(reference: Any, settings: TarSettings, model: Any, counted: Counted) -> torch.Tensor:
    return retain_loss(model, reference, counted, settings)


def _outer(loop: OuterLoop, number: int) -> dict[str, Any]:
    """An outer step and its update; the losses, for a comparison of machines."""
    step = loop.step(number)
    loop.engine.step()
    return {
        "inner losses": [round(v, 5) for v in step.attacks[0]["losses"]],
        "tamper losses": [round(v, 5) for _, v in step.attacks[0]["tamper"]],
        "retain loss": round(step.retain_loss, 5),
        "gradient": round(step.gradient, 5),
    }


def main() -> None:
    """Measure one variant and write its record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--variant", choices=list(VARIANTS), default="zero-3 plain")
    parser.add_argument("--shape", default="llama-3-8b", help="a name of kit/lm/shapes")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=256, help="tokens of a text")
    parser.add_argument(
        "--attack-only", action="store_true", help="steps of an attack, no outer loop"
    )
    parser.add_argument("--passes", type=int, default=20, help="of each kind; 0: none")
    parser.add_argument("--attack-steps", type=int, default=0, help="at the larger batch")
    parser.add_argument("--retain-passes", type=int, default=0)
    parser.add_argument("--outer-steps", type=int, default=0)
    parser.add_argument("--inner-steps", type=int, default=0, help="of an outer step; 0: 64")
    parser.add_argument("--rows", type=int, default=16, help="most rows in a forward pass")
    parser.add_argument("--inner-rows", type=int, default=32)
    parser.add_argument("--global-rows", type=int, default=64)
    parser.add_argument("--collected", choices=RESIDENCES, default=RESIDENT)
    parser.add_argument("--reference", choices=RESIDENCES, default=RESIDENT)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--details", action="store_true", help="kernels, snapshot and restore too")
    parser.add_argument("--beside", action="store_true", help="other work is on the GPUs meanwhile")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a narrow model, to try this script")
    chosen = parser.parse_args()
    if chosen.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        torch.set_num_threads(1)
    started = time.perf_counter()
    bench = Bench(chosen)
    bench.record |= {
        "shape": chosen.shape,
        "layers": chosen.layers,
        "rows a forward pass": chosen.rows,
        "checkpointing": chosen.checkpointing,
        "reference": chosen.reference,
        "other work on the GPUs meanwhile": chosen.beside,
        "gpus": dist.get_world_size(),
        "gpu": torch.cuda.get_device_name() if chosen.device == "cuda" else "none",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "seconds to build": round(time.perf_counter() - started, 1),
    }
    if chosen.attack_only:
        bench.attack_steps()
    elif chosen.passes:
        bench.all_passes()
    if chosen.retain_passes or chosen.outer_steps:
        reference = bench.reference()
        if chosen.retain_passes:
            bench.retain_passes(reference, chosen.retain_passes)
        bench.outer_steps(reference, chosen.outer_steps)
    bench.record["seconds in all"] = round(time.perf_counter() - started, 1)
    bench.say("seconds in all", bench.record["seconds in all"])
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    # Giving page-locked memory back block by block takes seconds that GPUs would wait.
    os._exit(0)


if __name__ == "__main__":
    main()
