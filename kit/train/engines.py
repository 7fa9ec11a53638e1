"""Which engine trains a model, by name: what a manifest chooses and a loop does not see."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from kit.train.engine import Engine, Precision
from kit.train.optimizers import OptimizerSpec

if TYPE_CHECKING:
    from torch import nn

SINGLE = "single-process"
ZERO3 = "zero-3"
FSDP = "fsdp"
ENGINES = (SINGLE, ZERO3, FSDP)
"""The whole model in each process, gradients reduced over processes; or everything sharded, by
DeepSpeed's ZeRO-3 or by torch's own fully sharded data parallelism."""

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
    outer_state: str = "resident",
    collected: str = "resident",
    compiled: bool = False,
    checkpointing: bool = False,
    weights_stay: bool = False,
    communication: str = "float32",
) -> EngineFactory:
    """What makes engines of that name, in one process or in those that torchrun started.

    Args:
        name: One of :data:`ENGINES`.
        device: ``cpu`` or ``cuda``.
        outer_state: Sharded: ``resident`` or ``offloaded`` during inner steps.
        collected: Sharded: likewise, gradients that are kept for later.
        compiled: Sharded: decoder layers are compiled.
        checkpointing: Sharded: decoder layers are computed again in the backward pass.
        weights_stay: ``fsdp``: gathered weights stay until the backward pass.
        communication: Sharded: type in which gradients are summed over processes.

    Raises:
        ValueError: Unknown engine.
    """
    if name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")
    common = {
        "outer_state": outer_state,
        "collected": collected,
        "compiled": compiled,
        "checkpointing": checkpointing,
        "communication": communication,
    }

    def single(model: nn.Module, spec: OptimizerSpec, precision: Precision) -> Engine:
        from kit.train.single_process import SingleProcess, data_parallel

        together = data_parallel(device) if processes() > 1 else None
        return SingleProcess(model, spec, precision, accelerator=together)

    def zero3(model: nn.Module, spec: OptimizerSpec, precision: Precision) -> Engine:
        from kit.train.zero3 import Zero3, Zero3Settings

        # DeepSpeed releases a leaf before its backward pass where what enters it needs no gradient.
        leaves = all(p.requires_grad for p in model.parameters())
        settings = Zero3Settings(leaf_layers=leaves, **cast("Any", common))
        return Zero3(model, spec, precision, settings=settings, device=device)

    def fsdp(model: nn.Module, spec: OptimizerSpec, precision: Precision) -> Engine:
        from kit.train.fsdp import Fsdp, FsdpSettings

        settings = FsdpSettings(gather_twice=not weights_stay, **cast("Any", common))
        return Fsdp(model, spec, precision, settings=settings, device=device)

    return {SINGLE: single, ZERO3: zero3, FSDP: fsdp}[name]
