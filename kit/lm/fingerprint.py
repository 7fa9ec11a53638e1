"""A hash of weights, to show which of them training moved."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def fingerprint(model: PreTrainedModel) -> str:
    """sha256 over every parameter's and buffer's name and :func:`fingerprints`."""
    prints = fingerprints(model.state_dict())
    return hashlib.sha256(repr(sorted(prints.items())).encode()).hexdigest()


def fingerprints(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """sha256 over each tensor's type, shape and bytes, by name.

    Large tensors are reduced on their device to two integer sums of their bit pattern (plain and
    weighted by position), so that a model of 16 GB is neither copied nor moved to the host: a
    change of any single bit changes the plain sum.
    """
    return {name: _print(tensor) for name, tensor in tensors.items()}


def _print(tensor: Tensor) -> str:
    import torch

    digest = hashlib.sha256(repr((str(tensor.dtype), tuple(tensor.shape))).encode())
    flat = tensor.detach().reshape(-1).contiguous().view(torch.uint8)
    if flat.numel() <= 1 << 20:
        digest.update(flat.cpu().numpy().tobytes())
        return digest.hexdigest()
    for part in torch.split(flat, 1 << 26):
        words = part[: part.numel() // 4 * 4].view(torch.int32).to(torch.int64)
        position = torch.arange(words.numel(), device=words.device) % 65521
        sums = (int(words.sum()), int((words * (position + 1)).sum()))
        digest.update(repr(sums).encode())
        digest.update(part[part.numel() // 4 * 4 :].cpu().numpy().tobytes())
    return digest.hexdigest()
