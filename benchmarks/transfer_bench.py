"""What the phases of ``measure_transfer`` share: models, texts, clocks and the record."""

from __future__ import annotations

import gc
import json
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kit.lm.standin import Shape, load_random_model, make_folder
from kit.methods.checkpoint_transfer.affine import AffineMap
from kit.methods.checkpoint_transfer.pairs import Pairs
from kit.methods.checkpoint_transfer.recipe import Recipe
from kit.train.compile_ahead import Ahead
from kit.train.lora import Lora

if TYPE_CHECKING:
    from torch import Tensor

    from kit.methods.checkpoint_transfer.states import States

ROW = 1024
"""Pairs of a row of the sweep (seed log, lines 37 to 49)."""
USES = 19
"""Rows that read a pair (manifest of ct-coefficient-grid)."""
BUDGET = 80
"""GiB that a row of 1,024 pairs keeps, as in the manifest."""


@dataclass
class Bench:
    """What the phases share, and the record that they fill.

    Attributes:
        folder: Of the record and of what is kept.
        shape: Of the models.
        tokens: Of a text.
        pairs: Measured ones.
        recipe: Of the row.
        device: ``cuda`` or ``cpu``.
        until: Seconds after which no phase begins.
        before: Seconds that earlier processes of the same record took.
        kept_of: Pairs whose targets are made; the measured ones are the first of them.
    """

    folder: Path
    shape: Shape
    tokens: int
    pairs: int
    recipe: Recipe
    device: str
    until: float
    record: dict[str, Any] = field(default_factory=dict)
    student: Any = None
    teacher: Any = None
    began: float = field(default_factory=time.perf_counter)
    before: float = 0.0
    kept_of: int = 0

    @property
    def width(self) -> int:
        """Of the residual stream."""
        return int(self.shape.config["hidden_size"])

    @property
    def depth(self) -> int:
        """Layers."""
        return int(self.shape.config["num_hidden_layers"])

    def forward(self, layers: int, *, head: bool) -> float:
        """Operations of a text's forward pass."""
        return self.tokens * self._products(layers, head, attention=2)

    def backward(self, layers: int, *, head: bool) -> float:
        """Operations of its backward pass through frozen weights: attention counts twice."""
        return self.tokens * self._products(layers, head, attention=4)

    def _products(self, layers: int, head: bool, *, attention: int) -> float:
        block = 24 * self.width**2 + attention * self.tokens * self.width
        return layers * block + head * 2 * self.width * int(self.shape.config["vocab_size"])

    @property
    def forget_layers(self) -> int:
        """Layers that a forget text runs through."""
        return max(self.recipe.blocks) + 1

    @property
    def trained(self) -> float:
        """Operations of a pair's two terms, targets and reference being there."""
        forget, whole = self.forget_layers, self.depth
        remove = self.forward(forget, head=False) + self.backward(forget, head=False)
        return remove + self.forward(whole, head=True) + self.backward(whole, head=True)

    @property
    def maps(self) -> dict[int, AffineMap]:
        """Random maps near the identity, the same in every phase."""
        made, generator = {}, torch.Generator().manual_seed(0)
        for block in self.recipe.blocks:
            noise = torch.randn(self.width, self.width, generator=generator)
            weight = torch.eye(self.width) + noise / self.width
            made[block] = AffineMap(weight, torch.zeros(self.width))
        return made

    def texts(self, count: int, seed: int) -> list[list[int]]:
        """Random ids."""
        generator = torch.Generator().manual_seed(seed)
        size = (count, self.tokens)
        ids: list[list[int]] = torch.randint(
            2, self.shape.tokens, size, generator=generator
        ).tolist()
        return ids

    def data(self, count: int) -> Pairs:
        """Pairs of the longest length."""
        forget, retain = (self.texts(max(count, self.kept_of), seed)[:count] for seed in (1, 2))
        return Pairs(forget, retain, 1, self.device)

    def model(self, seed: int, **changes: Any) -> Any:
        """Random weights."""
        shape = Shape(**{**vars(self.shape), "config": {**self.shape.config, **changes}})
        folder = make_folder(self.folder / f"shape-{seed}-{len(changes)}", shape)
        return load_random_model(folder, device=self.device, seed=seed)

    def ahead(self, *, rows: int) -> Ahead:
        """What a row asks the compiler for; its texts have one length."""
        modules = ("dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value")
        lora = Lora(16, 16.0, modules, dropout=self.recipe.lora_dropout)
        folder = make_folder(self.folder / "shape-1-0", self.shape)
        return Ahead(folder, lora, rows, self.tokens, False, "bfloat16", "bfloat16", self.device)

    def fresh_student(self) -> None:
        """A student without adapters; the one before is let go."""
        self.student = None
        free()
        self.student = self.model(1)

    def write(self) -> None:
        """Put the record on disk; after every phase."""
        self.record["seconds in all"] = round(self.before + time.perf_counter() - self.began, 1)
        text = json.dumps(self.record, indent=1)
        (self.folder / "record.json").write_text(text + "\n", encoding="utf-8")

    def phase(self, name: str, what: Callable[[], dict[str, Any]]) -> bool:
        """Run a phase and write its record, whatever becomes of it."""
        if time.perf_counter() - self.began > self.until:
            self.record[name] = {"not run": f"{self.until:g} s had passed"}
            self.write()
            return False
        free()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        try:
            found = what()
        except Exception as error:
            found = {"failed": repr(error)[:1500], "at": traceback.format_exc()[-3000:]}
        wait(self.device)
        found["seconds of the phase"] = round(time.perf_counter() - start, 2)
        if self.device == "cuda":
            found["peak GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
            found["reserved GB"] = round(torch.cuda.max_memory_reserved() / 1e9, 2)
        self.record[name] = found
        self.write()
        print(name, json.dumps(found)[:3000], flush=True)
        return "failed" not in found


@dataclass(frozen=True)
class TimedPairs(Pairs):
    """Pairs that note when each batch was asked for."""

    asked: list[float] = field(default_factory=list)

    def inputs(self, kind: str, examples: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Note the time."""
        self.asked.append(time.perf_counter())
        return super().inputs(kind, examples)

    def found(self, ended: float) -> dict[str, Any]:
        """Seconds of the quarters; a pair's behind the first quarter; what is left to write."""
        last = len(self.asked) - 1
        quarter = len(self.asked) // 4
        quarters = [*self.asked[:: max(1, quarter)][:4], ended]
        share = (last - quarter) / len(self.asked)
        pairs = share * len(self.forget)
        return {
            "quarters, seconds": [round(b - a, 2) for a, b in pairwise(quarters)],
            "a pair, behind the first quarter, seconds": round(
                (self.asked[last] - self.asked[quarter]) / pairs, 5
            ),
            "from the start of the last pass, seconds": round(ended - self.asked[last], 2),
        }


@dataclass(frozen=True)
class First:
    """The states of the first examples, as if no more were kept."""

    states: States
    count: int

    def __contains__(self, example: int) -> bool:
        return example < self.count and example in self.states

    def rows(self, example: int) -> dict[int, Tensor]:
        """Block -> [n, d] of one example."""
        return self.states.rows(example)


def file_system(folder: Path) -> str:
    """Its type: ``tmpfs`` is memory."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [(where, kind) for where, kind in mounts if folder.resolve().is_relative_to(where)]
    return max(holding, key=lambda mount: len(mount[0]))[1]


def free() -> None:
    """Give memory back that nothing refers to."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def wait(device: str) -> None:
    """Until the GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


@contextmanager
def timed(bench: Bench, into: dict[str, Any], name: str) -> Iterator[None]:
    """Seconds of what is done inside."""
    wait(bench.device)
    start = time.perf_counter()
    yield
    wait(bench.device)
    into[name] = round(time.perf_counter() - start, 3)


def tera(operations: float, seconds: float) -> float:
    """TFLOP/s."""
    return round(operations / seconds / 1e12, 1)


class Profiler:
    """Kernels of the third step by sort; that step is slower and stands in the list of steps."""

    def __init__(self, device: str) -> None:
        self.spent: dict[str, float] = {}
        self._on, self._profiled = device == "cuda", None

    def at(self, done: int) -> None:
        """Begin behind step 2, end behind step 3."""
        if not self._on or done not in (2, 3):
            return
        from torch.profiler import ProfilerActivity, profile

        if self._profiled is None:
            self._profiled = profile(activities=[ProfilerActivity.CUDA])
            self._profiled.__enter__()
            return
        self._profiled.__exit__(None, None, None)
        sorts = {
            "matrix products": ("gemm", "nvjet", "cutlass"),
            "attention": ("flash", "fmha"),
            "copies": ("memcpy", "memset"),
            "fused by the compiler": ("triton",),
        }
        self.spent = dict.fromkeys([*sorts, "other"], 0.0)
        for event in self._profiled.key_averages():
            name = event.key.lower()
            sort = next((s for s, parts in sorts.items() if any(p in name for p in parts)), "other")
            self.spent[sort] = round(self.spent[sort] + event.self_device_time_total / 1e6, 3)
