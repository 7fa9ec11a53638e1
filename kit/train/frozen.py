"""Where a frozen reference model is while it is not needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kit.train.zero3 import OFFLOADED, RESIDENT

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


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
    if residence not in (RESIDENT, OFFLOADED):
        raise ValueError(f"a reference model is {RESIDENT!r} or {OFFLOADED!r}, not {residence!r}")
    module: nn.Module = model
    module.requires_grad_(False).eval()
    if residence == RESIDENT:
        module.to(device)
        return model
    from accelerate import cpu_offload

    cpu_offload(module.cpu(), execution_device=torch.device(device))
    return model
