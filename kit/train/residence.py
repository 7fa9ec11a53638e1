"""Where something is while it is not needed: on the GPU, or in the machine's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from kit.train.optimizers import Optimizer

RESIDENT = "resident"
OFFLOADED = "offloaded"
RESIDENCES = (RESIDENT, OFFLOADED)


def frozen(model: PreTrainedModel, residence: str, device: torch.device | str) -> PreTrainedModel:
    """Freeze a model and put it where a setting says; it computes on ``device`` either way.

    Args:
        model: In the type that it computes in.
        residence: ``resident``: whole on the device. ``offloaded``: in the machine's memory, moved
            to the device module by module in each forward pass (accelerate).
        device: Of the forward passes.

    Raises:
        ValueError: Unknown residence.
    """
    if residence not in RESIDENCES:
        raise ValueError(f"a reference model is {RESIDENT!r} or {OFFLOADED!r}, not {residence!r}")
    module: nn.Module = model
    module.requires_grad_(False).eval()
    if residence == RESIDENT:
        module.to(device)
        return model
    from accelerate import cpu_offload

    module.cpu()
    if torch.device(device).type == "cuda":
        # Every forward pass moves all of it: from page-locked memory at the bus's full speed.
        for tensor in module.parameters():
            tensor.data = tensor.data.pin_memory()
    cpu_offload(module, execution_device=torch.device(device))
    return model


def copies(tensors: Sequence[Tensor], device: torch.device | str) -> list[Tensor]:
    """Copies in one piece of memory, page-locked where they leave a GPU."""
    target = torch.device(device)
    sizes = [t.numel() for t in tensors]
    pinned = target.type == "cpu" and tensors[0].device.type == "cuda"
    room = torch.empty(sum(sizes), dtype=tensors[0].dtype, device=target, pin_memory=pinned)
    parts = torch.split(room, sizes)
    made = [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]
    for copy, tensor in zip(made, tensors, strict=True):
        copy.copy_(tensor.detach(), non_blocking=True)
    return made


def move_state(optimizer: Optimizer, device: torch.device | str) -> None:
    """Put the state's tensors elsewhere, one after the other; counters stay."""
    for tensor in optimizer.tensors().values():
        if tensor.ndim and tensor.device.type != torch.device(device).type:
            tensor.data = copies([tensor], device)[0]
