"""Toy step kinds for the engine's tests. Loaded by worker processes through KIT_STEPS_MODULES."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY, ModelOutput, NoParams, Remedy, StepKind
from kit.manifest.types import Resources
from kit.results.types import Cell, Results


class MakeParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``toy/make``."""

    seed: int
    size: int = 2000
    seconds: float = 0.0
    parts: int = 1
    name: str = "plain"
    fraction: float = 1.0


def make(context: StepContext, params: MakeParams) -> None:
    """Write bytes that depend on nothing but the seed, part by part, resuming from scratch."""
    started = context.scratch / "started"
    tries = int(started.read_text()) + 1 if started.exists() else 1
    started.write_text(str(tries))
    parts = []
    for part in range(params.parts):
        kept = context.scratch / f"part-{part}"
        if not kept.exists():
            time.sleep(params.seconds / params.parts)
            text = hashlib.sha256(f"{params.seed}-{part}".encode()).hexdigest()
            temporary = kept.with_suffix(".tmp")
            temporary.write_text((text * (params.size // 64 + 1))[: params.size])
            temporary.replace(kept)
        parts.append(kept.read_text())
        context.progress(part + 1, params.parts, "parts")
        context.metric("loss", 1.0 / (part + 1), part)
    (context.out / "data.txt").write_text("".join(parts))
    context.canary("made", True, f"{params.parts} parts")


class MixParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``toy/mix``."""

    factor: int = 3


def mix(context: StepContext, params: MixParams) -> None:
    """Turn one input into a number."""
    data = (context.step("data").path / "data.txt").read_bytes()
    number = int(hashlib.sha256(data).hexdigest()[:8], 16) * params.factor
    (context.out / "number.json").write_text(json.dumps({"number": number}))


def mix_two(context: StepContext, params: MixParams) -> None:
    """As ``mix``; a second input may be given."""
    mix(context, params)


def table(context: StepContext, params: NoParams) -> None:
    """Collect numbers by axis into results."""
    cells, labels = [], []
    for one in context.steps("numbers"):
        number = json.loads((one.path / "number.json").read_text())["number"]
        name = "-".join(str(v["id"] if isinstance(v, dict) else v) for v in one.axes.values())
        cells.append(Cell(id=f"number.{name}", unit="1", value=float(number), step=one.instance))
        labels.append({"id": name, "items": [0], "labels": [number % 2]})
    import msgspec

    results = Results(schema_version=1, experiment="?", version="?", profile="?", cells=cells)
    (context.out / "results.json").write_bytes(msgspec.json.encode(results))
    (context.out / "roles.json").write_text(json.dumps(context.roles))
    (context.out / "labels.jsonl").write_text("".join(json.dumps(x) + "\n" for x in labels))


class LeakParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``toy/leak``."""

    fail: bool = False


def leak(context: StepContext, params: LeakParams) -> None:
    """Say everything that the environment holds, in every way that a step can speak."""
    everything = json.dumps(dict(os.environ))
    print(everything, flush=True)
    context.note(everything)
    context.canary("leak", True, everything)
    if params.fail:
        raise ValueError(everything)
    (context.out / "data.txt").write_text("nothing")


class FailParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``toy/fail``."""

    how: str = "ok"
    flag: str = ""
    rows: int = 8
    rate: float = 0.1


class TrainingDiverged(RuntimeError):
    """As training code raises it."""


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


CUDA_TEXT = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB of "
    "which 1.07 GiB is free. Process 4242 has 40.00 GiB memory in use. Including non-PyTorch "
    "memory, this process has 38.03 GiB memory in use. Of the allocated memory 36.00 GiB is "
    "allocated by PyTorch, and 1.41 GiB is reserved by PyTorch but unallocated."
)


def fail(context: StepContext, params: FailParams) -> None:
    """End in one of many ways; a flag file makes the second try succeed."""
    how = params.how
    if params.flag and Path(params.flag).exists():
        how = "ok"
    elif params.flag:
        Path(params.flag).touch()
    print(f"about to {how}", flush=True)
    if how == "value":
        raise ValueError("the rank must be positive")
    if how == "type":
        raise TypeError("unexpected")
    if how == "nan":
        raise TrainingDiverged("loss is nan at step 7")
    if how == "oom":
        context.progress(3, 20, "steps")
        (context.scratch / "state-2").touch()
        raise OutOfMemoryError(CUDA_TEXT)
    if how == "cuda":
        import torch

        raise torch.OutOfMemoryError(CUDA_TEXT)
    if how == "host":
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 4000000000000 bytes. Error code 12"
        )
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        print("leaving early", file=sys.stderr, flush=True)
        os._exit(7)
    if how == "secret":
        raise ValueError("could not log in with hf_" + "xY" * 12)
    if how.startswith("read "):
        print(len(Path(how.removeprefix("read ")).read_bytes()))
    if how == "axes":
        print(context.axes["seed"])
    if how == "undeclared":
        context.pin("model")
    if how == "link":
        (context.out / "link").symlink_to("/etc/hostname")
    if how == "stubborn":
        (context.scratch / "here").touch()
        while True:
            with contextlib.suppress(BaseException):
                time.sleep(30)
    if how == "parent":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        (context.scratch / "child").write_text(str(child.pid))
        time.sleep(300)
    if how == "fill":
        (context.out / "big").write_bytes(b"x" * 50_000_000)
    if how != "forget":
        (context.out / "number.json").write_text(json.dumps({"number": 1}))


def pinned(context: StepContext, params: NoParams) -> None:
    """Read a pin, and what the process may see."""
    pin = context.pin("source")
    text = "stand-in" if context.rehearsal else (pin.path / "text.txt").read_text()
    seen = {
        "text": text,
        "format": pin.attributes["format"],
        "token": "HF_TOKEN" in os.environ,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "torch": "torch" in sys.modules,
        "pid": os.getpid(),
    }
    (context.out / "data.txt").write_text(json.dumps(seen))


def _first_then(context: StepContext, rank: int, act: Callable[[], object]) -> None:
    """Rank 1 acts; rank 0 complains of it a moment later, in the file that is read first."""
    flag = context.scratch / f"flag-{os.getppid()}"
    if rank == 1:
        flag.touch()
        cause = act()
        assert isinstance(cause, Exception)
        raise cause
    while not flag.exists():
        time.sleep(0.001)
    time.sleep(0.03)
    raise ConnectionError("connection closed by peer")


class LongParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``toy/long``."""

    steps: int = 1000
    saving: float = 0.0
    asks: bool = True


def long(context: StepContext, params: LongParams) -> None:
    """Count slowly, alone or with others in step; save the count where that is due."""
    mine, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        from torch import distributed

        distributed.init_process_group("gloo")
    state = context.scratch / f"state-{mine}"
    start = int(state.read_text()) if state.exists() else 0
    saves = 0
    for step in range(start, params.steps):
        time.sleep(0.01)
        context.progress(step + 1, params.steps, "steps")
        (context.scratch / f"seen-{mine}").write_text(f"{os.getpid()} {step + 1}")
        if params.asks and context.due():
            time.sleep(params.saving * (1 + mine))
            state.write_text(str(step + 1))
            saves += 1
            context.saved()
    if mine == 0:
        told = {"number": params.steps, "start": start, "saves": saves, "world": world}
        (context.out / "number.json").write_text(json.dumps(told))
    if world > 1:
        distributed.barrier()
        distributed.destroy_process_group()


def rank(context: StepContext, params: FailParams) -> None:
    """One rank of several: the sum of all ranks, without torch's collectives."""
    world, mine = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    if params.how == "value" and mine == 1:
        raise ValueError("rank 1 does not like this")
    if params.how == "echo":
        _first_then(context, mine, lambda: ValueError("rank 1 does not like this"))
    flag = context.scratch / f"flag-{os.getppid()}"  # of this torchrun
    earlier = set(context.scratch.glob("flag-*")) - {flag}
    if params.how == "killed" or (params.how == "killed once" and not earlier):
        _first_then(context, mine, lambda: os.kill(os.getpid(), signal.SIGKILL))
    if params.how == "stuck":
        if mine == 0:
            raise ValueError("rank 0 does not like this")
        while True:  # as a process that waits in C++ for the failed one
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            time.sleep(1)
    if params.how == "sleep":
        (context.scratch / f"pid-{mine}").write_text(str(os.getpid()))
        time.sleep(60)
    if mine == 0:
        context.progress(1, 1, "steps")
        context.canary("world", world == 2, f"{world} ranks")
        (context.out / "number.json").write_text(json.dumps({"number": world}))


class PretrainParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``toy/pretrain``."""

    seed: int = 0
    format: str = "plain"
    forget: str = ""


def pretrain(context: StepContext, params: PretrainParams) -> None:
    """Write a model from nothing: one number, and a tokenizer in a folder of its own."""
    write_model(context.out / "model", float(params.seed), forget=params.forget)


class TrainParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``toy/train``."""

    add: float = 1.0


def train(context: StepContext, params: TrainParams) -> None:
    """Add to a model's number; what it was is written beside the new model."""
    start = context.model("model")
    number = read_model(start.path)
    (context.out / "report.json").write_text(json.dumps({"from": number}))
    write_model(context.out / "weights" / "final", number + params.add)


def attack(context: StepContext, params: MixParams) -> None:
    """Multiply a model's number."""
    victim = context.model("victim")
    told = {
        "number": read_model(victim.path) * params.factor,
        "attributes": victim.attributes,
        "pinned": victim.pinned,
    }
    (context.out / "number.json").write_text(json.dumps(told))


def write_model(folder: Path, number: float, forget: str = "") -> None:
    """A folder as a model is laid out, with a folder inside."""
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer" / "vocabulary.json").write_text("{}")
    for name, text in (("config.json", "{}"), ("model.safetensors", repr(number))):
        if name != forget:
            (folder / name).write_text(text)


def read_model(folder: Path) -> float:
    """The number of a model, all of whose files must be there."""
    assert (folder / "config.json").is_file()
    assert (folder / "tokenizer" / "vocabulary.json").is_file()
    return float((folder / "model.safetensors").read_text())


class SharedParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``toy/shared``, as a training over many GPUs has them."""

    global_batch: int
    micro_batch: int
    accumulation: int = 0


def shared(context: StepContext, params: SharedParams) -> None:
    """Count the samples of one optimizer step over all ranks, with torch's collectives."""
    import torch
    from torch import distributed

    distributed.init_process_group("gloo")
    mine = torch.tensor([params.micro_batch * params.accumulation, distributed.get_rank()])
    distributed.all_reduce(mine)
    if distributed.get_rank() == 0:
        context.progress(1, 1, "steps")
        context.canary("batch", int(mine[0]) == params.global_batch, f"{int(mine[0])} samples")
        told = {"number": int(mine[0]), "ranks": int(mine[1]), "node": os.environ["GROUP_RANK"]}
        (context.out / "number.json").write_text(json.dumps(told))
    distributed.barrier()
    distributed.destroy_process_group()


def counted(params: MakeParams, gpu: bool) -> Resources:
    """More memory where a GPU is needed."""
    return Resources(memory_gb=2.0 if gpu else 0.1, minutes=0.01)


CPU = ("device",)
REGISTRY.add(
    StepKind("toy/make", 2, MakeParams, make, {}, ("data.txt",), resources=counted, environment=CPU)
)
REGISTRY.add(
    StepKind("toy/mix", 1, MixParams, mix, {"data": "step"}, ("number.json",), environment=CPU)
)
REGISTRY.add(
    StepKind(
        "toy/mix-two",
        1,
        MixParams,
        mix_two,
        {"data": "step", "more": "step"},
        ("number.json",),
        environment=CPU,
        optional=frozenset({"more"}),
    )
)
REGISTRY.add(
    StepKind(
        "toy/table", 1, NoParams, table, {"numbers": "steps"}, ("results.json",), environment=CPU
    )
)
REGISTRY.add(
    StepKind(
        "toy/fail",
        1,
        FailParams,
        fail,
        {},
        ("number.json",),
        environment=CPU,
        lowers_memory=(
            Remedy("rows", lambda p: p.rows // 2 if p.rows > 1 else None, "slower, same numbers"),
            Remedy("flag", lambda p: None, "never offered"),
        ),
        steadies=(Remedy("rate", lambda p: p.rate / 2, "other numbers"),),
    )
)
REGISTRY.add(StepKind("toy/leak", 1, LeakParams, leak, {}, ("data.txt",), environment=CPU))
REGISTRY.add(
    StepKind("toy/pinned", 1, NoParams, pinned, {"source": "pin"}, ("data.txt",), environment=CPU)
)
REGISTRY.add(
    StepKind(
        "toy/pretrain",
        1,
        PretrainParams,
        pretrain,
        {},
        ("model",),
        environment=CPU,
        model=ModelOutput(attributes=lambda params: {"format": params.format}),
    )
)
REGISTRY.add(
    StepKind(
        "toy/train",
        1,
        TrainParams,
        train,
        {"model": "model"},
        ("weights/final", "report.json"),
        environment=CPU,
        model=ModelOutput(folder="weights/final", inherits="model"),
    )
)
REGISTRY.add(
    StepKind(
        "toy/attack", 1, MixParams, attack, {"victim": "model"}, ("number.json",), environment=CPU
    )
)
REGISTRY.add(
    StepKind(
        "toy/rank",
        1,
        FailParams,
        rank,
        {},
        ("number.json",),
        launch="torchrun",
        environment=("device", "world"),
    )
)
REGISTRY.add(
    StepKind(
        "toy/long",
        1,
        LongParams,
        long,
        {},
        ("number.json",),
        launch="torchrun",
        environment=("device", "world"),
        stop_seconds=9.0,
    )
)
REGISTRY.add(
    StepKind(
        "toy/shared",
        1,
        SharedParams,
        shared,
        {},
        ("number.json",),
        launch="torchrun",
        environment=("device", "world"),
    )
)
