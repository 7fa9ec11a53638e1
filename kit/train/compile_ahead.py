"""Compile a model's layers beside other work, so that a later process finds them in the caches.

What torch compiles lies on disk (``TORCHINDUCTOR_CACHE_DIR``, ``TRITON_CACHE_DIR``) under a key of
the graph, its shapes and types; weights are no part of it. A process of its own, with two layers
of random weights, fills the caches while the GPU is busy with something else.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

import torch

from kit.lm.files import read_config
from kit.lm.hidden import block_outputs
from kit.lm.standin import load_random_model
from kit.train.compiling import compiled_layers
from kit.train.engine import Precision
from kit.train.lora import Lora, add_adapter
from kit.train.optimizers import AdamW
from kit.train.single_process import SingleProcess


@dataclass(frozen=True)
class Ahead:
    """What a training will ask the compiler for.

    Attributes:
        model: A folder with ``config.json``.
        lora: The adapter, on some layers or all.
        rows: Texts in a forward pass.
        tokens: Of the longest text.
        padded: Whether the texts differ in length, which is another graph.
        dtype: Of the frozen weights.
        compute: Of the engine.
        device: Where it will run.
    """

    model: Path
    lora: Lora
    rows: int
    tokens: int
    padded: bool
    dtype: str
    compute: str
    device: str


@dataclass
class Compiling:
    """How it went.

    Attributes:
        seconds: From the start to the end of the last process.
        waited: Of these, after the work beside it was done.
        failed: The end of what the process said, if it failed: the later process compiles itself.
    """

    seconds: float = 0.0
    waited: float = 0.0
    failed: str | None = None


def compile_layer(what: Ahead) -> None:
    """Run a layer forward and backward as a training does."""
    config = {**read_config(what.model), "num_hidden_layers": 2}
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        model = load_random_model(folder, dtype=what.dtype, device=what.device)
    # The first layer stays as it is (compiled_layers); with an adapter its output asks for
    # gradients, as that of every layer in front of a compiled one does.
    adapted: Any = add_adapter(model, Lora(**{**asdict(what.lora), "layers": (0, 1)}), seed=0)
    engine = SingleProcess(adapted, AdamW(1e-3, 0.0), Precision(what.compute))
    ids = torch.full((what.rows, what.tokens), 2, device=what.device)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, -1] = not what.padded

    def loss(trained: Any, ids: torch.Tensor) -> torch.Tensor:
        return block_outputs(trained, ids, mask, [1])[1].float().square().mean()

    with compiled_layers(adapted):
        engine.accumulate(loss, [ids])


@contextmanager
def compiling_ahead(*graphs: Ahead) -> Iterator[Compiling]:
    """Compile, in a process each, while the block runs; wait for them at the end."""
    how, began = Compiling(), time.perf_counter()
    with ExitStack() as stack:
        children = [stack.enter_context(_child(graph)) for graph in graphs]
        yield how
        waiting = time.perf_counter()
        for child, said in children:
            if child.wait():
                said.seek(0)
                how.failed = said.read().decode(errors="replace")[-2000:]
        how.seconds, how.waited = (time.perf_counter() - start for start in (began, waiting))


@contextmanager
def _child(graph: Ahead) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    given = json.dumps({**asdict(graph), "model": str(graph.model)})
    command = [sys.executable, "-m", "kit.train.compile_ahead", given]
    with TemporaryFile() as said:
        child = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        try:
            yield child, said
        finally:
            child.kill()
            child.wait()


def main() -> None:
    """Compile what the argument describes."""
    given = json.loads(sys.argv[1])
    lora = Lora(**{**given["lora"], "targets": tuple(given["lora"]["targets"])})
    compile_layer(Ahead(**{**given, "model": Path(given["model"]), "lora": lora}))


if __name__ == "__main__":
    main()
