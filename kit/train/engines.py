"""Which engine trains a model, by name: what a manifest chooses and a loop does not see."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from kit.train.engine import Engine, Precision
from kit.train.optimizers import OptimizerSpec

if TYPE_CHECKING:
    from torch import nn

SINGLE = "single-process"
ZERO3 = "zero-3"
ENGINES = (SINGLE, ZERO3)
"""The whole model in each process, gradients reduced over processes; or everything sharded."""

EngineFactory = Callable[["nn.Module", OptimizerSpec, Precision], Engine]


def processes() -> int:
    """Processes that torchrun started, this one included; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def use_own_gpu(device: str) -> None:
    """Of several processes on a host, each works on a GPU of its own; before a model is loaded."""
    if device == "cuda" and processes() > 1:
        import torch

        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def engine_factory(
    name: str = SINGLE,
    device: str = "cpu",
    *,
    leaf_layers: bool = True,
    outer_state: str = "resident",
) -> EngineFactory:
    """What makes engines of that name, in one process or in those that torchrun started.

    Args:
        name: One of :data:`ENGINES`.
        device: ``cpu`` or ``cuda``.
        leaf_layers: Sharded: gather decoder layers as wholes, where all weights are trained.
        outer_state: Sharded: ``resident`` or ``offloaded`` during inner steps.

    Raises:
        ValueError: Unknown engine.
    """
    if name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")

    def single(model: nn.Module, spec: OptimizerSpec, precision: Precision) -> Engine:
        from kit.train.single_process import SingleProcess, data_parallel

        together = data_parallel(device) if processes() > 1 else None
        return SingleProcess(model, spec, precision, accelerator=together)

    def sharded(model: nn.Module, spec: OptimizerSpec, precision: Precision) -> Engine:
        from kit.train.zero3 import Zero3, Zero3Settings

        # DeepSpeed releases a leaf before its backward pass where what enters it needs no gradient.
        whole_layers = leaf_layers and all(p.requires_grad for p in model.parameters())
        settings = Zero3Settings(leaf_layers=whole_layers, outer_state=outer_state)
        return Zero3(model, spec, precision, settings=settings, device=device)

    return sharded if name == ZERO3 else single
