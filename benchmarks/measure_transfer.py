"""Measure checkpoint transfer at full shape on one GPU: a row of the sweep cold and warm, memory,
the published recipe without any caching, and steps of a full tampering attack.

    python -m benchmarks.measure_transfer FOLDER [--pairs 256] [--kept-of 512] [--only cold]

With ``--only`` a phase runs alone and joins the record that the folder has: rows of a sweep are
processes of their own, and find what the first one compiled in the caches below the folder.

Random weights in the shape of GPT-NeoX 6.9B, random texts of the longest length. Everything is
measured on a stated share of a row's 1,024 pairs and extrapolated to it; the record has both. A
phase that fails is written down with its error, and the next one begins.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import kl_div, log_softmax

from benchmarks.transfer_bench import (
    BUDGET,
    ROW,
    USES,
    Bench,
    First,
    Profiler,
    TimedPairs,
    file_system,
    tera,
    timed,
    wait,
)
from kit.lm.standin import read_shape
from kit.methods.checkpoint_transfer.counting import coefficients
from kit.methods.checkpoint_transfer.pairs import Pairs, batches
from kit.methods.checkpoint_transfer.recipe import Recipe
from kit.methods.checkpoint_transfer.states import FileStates
from kit.methods.checkpoint_transfer.student import make_student, optimizer_spec
from kit.methods.checkpoint_transfer.targets import (
    FORGET,
    RETAIN,
    ForgetTargets,
    RetainReference,
    keep_pairs,
    kept_states,
)
from kit.methods.checkpoint_transfer.targets import keep as states_of
from kit.methods.checkpoint_transfer.whole_run import Kept, run_recipe
from kit.train.batches import micro_batches
from kit.train.batching import Example
from kit.train.compile_ahead import Compiling, compiling_ahead
from kit.train.engine import Precision
from kit.train.losses import language_model_loss
from kit.train.optimizers import AdamW
from kit.train.single_process import SingleProcess


def passes(bench: Bench, times: int = 3) -> dict[str, Any]:
    """Matrix products and forward passes alone, without anything around them."""
    found: dict[str, Any] = {}
    size = 8192 if bench.device == "cuda" else 256
    a, b = (torch.randn(size, size, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(15):
        with timed(bench, found, "product"):
            a @ b
        seconds.append(found.pop("product") or 1e-9)
    found["matrix product, TFLOP/s"] = tera(2 * size**3, statistics.median(seconds[5:]))
    data = bench.data(4)
    targets = ForgetTargets(bench.teacher, bench.maps, bench.recipe)
    reference = RetainReference(bench.student)
    ways: dict[str, tuple[str, Any, float]] = {
        "teacher to the last needed block, with maps": (
            FORGET,
            targets.compute,
            bench.forward(bench.forget_layers, head=False),
        ),
        "retain reference": (RETAIN, reference.compute, bench.forward(bench.depth, head=False)),
    }
    for name, (kind, compute, operations) in ways.items():
        ids, mask = data.inputs(kind, range(4))
        compute(ids, mask)
        with timed(bench, found, name):
            for _ in range(times):
                compute(ids, mask)
        found[f"{name}, TFLOP/s"] = tera(4 * times * operations, found[name])
    return found


def keep(bench: Bench, data: Pairs) -> dict[str, Any]:
    """What the rows of a sweep share, as the step ``targets`` makes it."""
    found: dict[str, Any] = {}
    data = TimedPairs(**vars(data))
    budget = BUDGET * 2**30 * len(data.forget) // ROW * bench.tokens * bench.width // (2048 * 4096)
    with timed(bench, found, "making and writing"):
        plan, written = keep_pairs(
            bench.folder / "kept",
            bench.teacher,
            bench.student,
            bench.maps,
            bench.recipe,
            data,
            width=bench.width,
            uses=USES,
            budget=budget,
            batch=4,
            dtype="bfloat16",
        )
    found |= data.found(time.perf_counter()) | page_locked(bench.device)
    found |= {"kept": vars(plan), "GiB written": round(written / 2**30, 2)}
    # Start and end are there once a row.
    more = ROW - len(data.forget)
    whole = found["making and writing"] + more * found["a pair, behind the first quarter, seconds"]
    return found | {
        "pairs": len(data.forget),
        "1024 pairs, seconds": round(whole, 1),
        "1024 pairs, start and end extrapolated too as in earlier records, seconds": round(
            found["making and writing"] * ROW / len(data.forget), 1
        ),
        "read back, blocks that differ from the computed": differing(bench, data),
        "passes alone, behind that": passes(bench, times=6),
    }


def page_locked(device: str) -> dict[str, Any]:
    """What getting page-locked memory took: blocks, and milliseconds."""
    stats = torch.cuda.host_memory_stats() if device == "cuda" else {}
    names = {"num_host_alloc": "page-locked blocks", "host_alloc_time.total": "page-locking, ms"}
    return {
        words: int(stats[n] / (1000 if "time" in n else 1))
        for n, words in names.items()
        if n in stats
    }


def differing(bench: Bench, data: Pairs) -> dict[str, int]:
    """How many kept states of the first, middle and last group are not the computed ones' bits."""
    computed: dict[str, Any] = {
        FORGET: ForgetTargets(bench.teacher, bench.maps, bench.recipe).compute,
        RETAIN: RetainReference(bench.student).compute,
    }
    found = {}
    for kind, compute in computed.items():
        kept = kept_states(bench.folder / "kept", kind)
        assert isinstance(kept, FileStates)
        count = len(list(kept))
        starts = {0, count // 8 * 4, (count - 1) // 4 * 4}
        groups = [range(start, min(start + 4, count)) for start in starts]
        found[kind] = sum(
            not torch.equal(kept.rows(example)[block].to(values.device), values)
            for example, rows in states_of(compute, data, kind, groups)
            for block, values in rows.items()
        )
        kept.close()
    return found


def until_on_disk() -> float:
    """Seconds until the disk has what was written."""
    start = time.perf_counter()
    os.sync()
    return round(time.perf_counter() - start, 2)


def train(
    bench: Bench,
    data: Pairs,
    *,
    rows: int,
    compiled: bool,
    kept: Kept,
    remove: float = 5.0,
    profile: bool = False,
) -> dict[str, Any]:
    """A configuration on the pairs, as the step ``unlearn`` trains it, and seconds a step."""
    count = len(data.forget)
    recipe = Recipe(**{**vars(bench.recipe), "examples": count, "remove_coef": remove})
    ends = [time.perf_counter()]
    profiler = Profiler(bench.device) if profile else None

    def stepped(done: int) -> None:
        wait(bench.device)
        ends.append(time.perf_counter())
        if profiler is not None:
            profiler.at(done)
            ends[-1] = time.perf_counter()

    done = run_recipe(
        bench.student,
        bench.teacher,
        bench.maps,
        recipe,
        data,
        seed=42,
        precision=Precision("bfloat16"),
        kept=kept,
        rows=rows,
        compiled=compiled,
        on_step=stepped,
    )
    bench.student = done.model
    wait(bench.device)
    whole = time.perf_counter() - ends[0]
    steps = [b - a for a, b in pairwise(ends)]
    # The first compiles, the third is profiled; the others differ in how many targets are kept.
    plain = [step for at, step in enumerate(steps) if at and not (profile and at == 2)] or steps
    mean = statistics.mean(plain)
    computed = sum(kept.forget is None or e not in kept.forget for e in range(count)) / count
    needed = bench.trained + computed * bench.forward(bench.forget_layers, head=False)
    if kept.retain is None:
        needed += bench.forward(bench.depth, head=False)
    found = {
        "pairs": count,
        "texts in a forward pass": rows,
        "compiled": compiled,
        "steps of 32 pairs, seconds": [round(step, 3) for step in steps],
        "mean step": round(mean, 3),
        "first step over the mean": round(steps[0] - mean, 2),
        "around the steps": round(whole - sum(steps), 2),
        "targets computed here, share": computed,
        "needed TFLOP a pair": round(needed / 1e12, 1),
        "TFLOP/s of the mean step": tera(needed * recipe.global_batch, mean),
        "losses": [done.run.remove[0], done.run.remove[-1], done.run.retain[-1]],
        "teacher unchanged": done.teacher_unchanged,
        "moved": len(done.moved),
        "moved that may not": sorted(done.moved - done.allowed)[:3],
        "1024 pairs, seconds": round(
            mean * ROW / recipe.global_batch + steps[0] - mean + whole - sum(steps), 1
        ),
    }
    if profiler is not None:
        found["kernels of a step, seconds"] = profiler.spent
    return found


def cold(bench: Bench, *, compiled: bool) -> dict[str, Any]:
    """The first row of a sweep: targets made, kept and used; its layers compiled meanwhile."""
    data = bench.data(bench.kept_of)
    if not compiled:
        targets, ahead = keep(bench, data), Compiling()
    else:
        with compiling_ahead(bench.ahead(rows=2)) as ahead:
            targets = keep(bench, data)
    with ThreadPoolExecutor(1) as disk:
        synced = disk.submit(until_on_disk)
        data, kept = bench.data(bench.pairs), bench_kept(bench)
        row = train(bench, data, rows=2, compiled=compiled, kept=kept)
        targets["seconds until the disk had it, beside training"] = synced.result()
    made = targets["1024 pairs, seconds"]
    wait_on = max(0.0, ahead.seconds - made)
    return {
        "targets": targets,
        "compiled ahead": vars(ahead),
        "training": row,
        "1024 pairs, targets, seconds": round(made, 1),
        "1024 pairs, waiting for what is compiled ahead, seconds": round(wait_on, 1),
        "1024 pairs, seconds": round(made + wait_on + row["1024 pairs, seconds"], 1),
    }


def bench_kept(bench: Bench) -> Kept:
    """What :func:`keep` wrote; of the forget targets the share that a row reads."""
    folder = bench.folder / "kept"
    forget = kept_states(folder, FORGET)
    if isinstance(forget, FileStates):
        forget = First(forget, len(list(forget)) * bench.pairs // bench.kept_of)
    return Kept(forget, kept_states(folder, RETAIN))


def reference(bench: Bench) -> dict[str, Any]:
    """The published recipe without caching, written plainly with transformers and peft.

    Whole forward passes with the output layer, recomputed activations, both terms in one backward
    pass, four pairs at a time (reference page, 1.4 to 1.9 and 6): an eighth of a row.
    """
    recipe = Recipe(**{**vars(bench.recipe), "examples": max(32, bench.pairs // 2)})
    data = bench.data(recipe.examples)
    model: Any = make_student(bench.student, recipe, seed=42)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    engine = SingleProcess(model, optimizer_spec(recipe), Precision("bfloat16"))
    maps = {b: m.to(bench.device, torch.bfloat16) for b, m in bench.maps.items()}
    seconds = []
    for micros in batches(recipe, 42):
        wait(bench.device)
        start = time.perf_counter()
        for micro in micros:
            now = coefficients(micro.number, retain=2.0, remove=5.0, ramp=recipe.steps.ramp)
            with torch.autocast(bench.device, torch.bfloat16):
                model.train()
                loss = now.remove * _published_remove(bench, model, maps, data, micro.examples)
                loss = loss + now.retain * _published_retain(model, data, micro.examples)
            (loss / len(micros)).backward()
        engine.clip(recipe.clip)
        engine.step()
        wait(bench.device)
        seconds.append(time.perf_counter() - start)
    model.gradient_checkpointing_disable()
    bench.student = model.merge_and_unload()
    mean = statistics.mean(seconds[1:] or seconds)
    return {
        "pairs": recipe.examples,
        "steps of 32 pairs, seconds": [round(one, 3) for one in seconds],
        "mean step": round(mean, 3),
        "1024 pairs, seconds": round(mean * ROW / recipe.global_batch, 1),
        "last loss": float(loss.detach()),
    }


def _published_remove(bench: Bench, model: Any, maps: Any, data: Pairs, examples: Any) -> Any:
    ids, mask = data.batch(FORGET, examples)
    inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    with torch.no_grad():
        theirs = bench.teacher(**inputs, output_hidden_states=True).hidden_states
    ours = model(**inputs, output_hidden_states=True).hidden_states
    parts = [
        (ours[layer].float() - maps[layer - 1](theirs[layer]).float()).square()[mask].mean()
        for layer in bench.recipe.layers
    ]
    return torch.stack(parts).mean()


def _published_retain(model: Any, data: Pairs, examples: Any) -> Any:
    ids, mask = data.batch(RETAIN, examples)
    inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    with torch.no_grad(), model.disable_adapter():
        model.eval()
        before = model(**inputs).logits
        model.train()
    after = model(**inputs).logits
    aims, found = (log_softmax(scores.float(), dim=-1) for scores in (before, after))
    return kl_div(found, aims, reduction="none", log_target=True).sum(-1)[mask].mean()


def tamper(bench: Bench, layers: int) -> dict[str, Any]:
    """Full-parameter attack steps of 16 texts with fp32 masters, AdamW, on fewer layers."""
    model = bench.model(3, num_hidden_layers=layers)
    model.requires_grad_(True)
    engine = SingleProcess(model, AdamW(2e-5, 0.01), Precision("bfloat16"))
    examples = [Example(str(at), tuple(ids), 1) for at, ids in enumerate(bench.texts(16, 4))]
    seconds, losses = [], []
    for _ in range(4):
        wait(bench.device)
        start = time.perf_counter()
        data = micro_batches(examples, engine, rows=2, pad_id=1)
        losses.append(float(engine.accumulate(language_model_loss, data)))  # type: ignore[arg-type]
        engine.step()
        wait(bench.device)
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[1:])
    operations = 16 * (3 * bench.forward(layers, head=True))
    return {
        "layers": layers,
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps of 16 texts, seconds": [round(one, 3) for one in seconds],
        "median step": round(median, 3),
        "TFLOP/s": tera(operations, median),
        "losses": losses,
    }


def summary(record: dict[str, Any]) -> dict[str, Any]:
    """The figures that bars are put on."""
    found: dict[str, Any] = {}
    rows = {
        name: record[key]
        for name, key in PHASES.items()
        if "1024 pairs, seconds" in record.get(key, {})
    }
    for name, row in rows.items():
        found[f"{name}, 1024 pairs, minutes"] = round(row["1024 pairs, seconds"] / 60, 2)
        found[f"{name}, peak GB"] = row.get("peak GB")
    for name in ("cold", "warm"):
        if {name, "reference"} <= rows.keys():
            ratio = rows["reference"]["1024 pairs, seconds"] / rows[name]["1024 pairs, seconds"]
            found[f"reference over {name}"] = round(ratio, 2)
    few, many = (
        record.get("d: tamper step, 4 layers", {}),
        record.get("d: tamper step, 12 layers", {}),
    )
    if "median step" in few and "median step" in many:
        layer = (many["median step"] - few["median step"]) / 8
        found["tamper step of 32 layers on one GPU, if it fitted, seconds"] = round(
            few["median step"] + 28 * layer, 2
        )
    return found


def finish(bench: Bench) -> None:
    """Write the summary."""
    bench.record["summary"] = summary(bench.record)
    bench.write()
    print(json.dumps(bench.record["summary"], indent=1), flush=True)


PHASES = {
    "cold": "a: a row cold",
    "warm": "b: a further row, caches warm",
    "small": "one text at a time, not compiled",
    "reference": "c: the published recipe, nothing cached",
    "targets": "making targets, nothing beside it",
}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--kept-of", type=int, help="pairs whose targets are made; else --pairs")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--shape", default="gpt-neox-6.9b", help="a name, or a JSON file of one")
    parser.add_argument("--layers", default="5,10,15,20,25,30")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--until", type=float, default=420.0)
    parser.add_argument("--only", choices=("cold", "warm", "reference", "targets"))
    chosen = parser.parse_args()
    for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        os.environ[variable] = str((chosen.folder / "cache" / variable).absolute())
    chosen.folder.mkdir(parents=True, exist_ok=True)
    declared = chosen.shape
    if declared.endswith(".json"):
        declared = json.loads(Path(declared).read_text(encoding="utf-8"))
    layers = tuple(map(int, chosen.layers.split(",")))
    bench = Bench(
        chosen.folder,
        read_shape(declared),
        chosen.tokens,
        chosen.pairs,
        Recipe(2.0, 5.0, layers=layers, examples=chosen.pairs),
        chosen.device,
        chosen.until,
        kept_of=chosen.kept_of or chosen.pairs,
    )
    import peft
    import transformers

    if chosen.only and (chosen.folder / "record.json").is_file():
        bench.record |= json.loads((chosen.folder / "record.json").read_text(encoding="utf-8"))
        bench.before = bench.record["seconds in all"]
    bench.record |= {
        "gpu": torch.cuda.get_device_name() if chosen.device == "cuda" else "none",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "states kept on": file_system(chosen.folder),
        "shape": {"layers": bench.depth, "width": bench.width, "tokens of a text": bench.tokens},
        "note": f"measured on {chosen.pairs} of a row's {ROW} pairs; lines that begin with 1024 "
        "are extrapolated, with compilation, checks of weights, and start and end of making the "
        f"targets of {bench.kept_of} pairs once; models are made beforehand",
    }

    def models() -> dict[str, Any]:
        bench.teacher, bench.student = bench.model(0), bench.model(1)
        return {"parameters": sum(p.numel() for p in bench.student.parameters())}

    bench.phase("models", models)

    def row(count: int, **how: Any) -> dict[str, Any]:
        return train(bench, bench.data(count), kept=bench_kept(bench), **how)

    if chosen.only:
        alone: dict[str, Callable[[], dict[str, Any]]] = {
            "cold": lambda: cold(bench, compiled=True),
            "warm": lambda: row(chosen.pairs, rows=2, compiled=True, remove=100.0),
            "reference": lambda: reference(bench),
            "targets": lambda: {
                **keep(bench, bench.data(bench.kept_of)),
                "seconds until the disk had it, behind that": until_on_disk(),
            },
        }
        bench.phase(PHASES[chosen.only], alone[chosen.only])
        finish(bench)
        return
    bench.phase("passes alone", lambda: passes(bench))
    compiled = bench.phase(PHASES["cold"], lambda: cold(bench, compiled=True))
    if not compiled:
        bench.record["a: a row cold, compiled"] = bench.record.pop(PHASES["cold"])
        bench.fresh_student()
        (chosen.folder / "kept").rename(chosen.folder / "kept-before")
        bench.phase(PHASES["cold"], lambda: cold(bench, compiled=False))

    few = min(64, chosen.pairs)
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        PHASES["warm"]: lambda: row(
            chosen.pairs, rows=2, compiled=compiled, remove=100.0, profile=True
        ),
        PHASES["reference"]: lambda: reference(bench),
        PHASES["small"]: lambda: row(few, rows=1, compiled=False),
        "two texts at a time, not compiled": lambda: row(few, rows=2, compiled=False),
    }
    for name, what in ways.items():
        if not bench.phase(name, what):
            bench.fresh_student()
    bench.student = bench.teacher = None
    for layers_kept in (4, 12):
        depth = min(layers_kept, bench.depth)
        bench.phase(f"d: tamper step, {layers_kept} layers", lambda n=depth: tamper(bench, n))
    finish(bench)


if __name__ == "__main__":
    main()
