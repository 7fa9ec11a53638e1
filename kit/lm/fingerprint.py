"""A hash of all weights, to show that training moved none of them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def fingerprint(model: PreTrainedModel) -> str:
    """sha256 over every parameter's and buffer's name, type, shape and bytes.

    Large tensors are reduced on their device to two integer sums of their bit pattern (plain and
    weighted by position), so that a model of 16 GB is not copied to the host: a change of any
    single bit changes the plain sum.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        flat = tensor.detach().reshape(-1).contiguous().view(torch.uint8)
        if flat.numel() <= 1 << 20:
            digest.update(flat.cpu().numpy().tobytes())
            continue
        for part in flat.split(1 << 26):
            words = part[: part.numel() // 4 * 4].view(torch.int32).to(torch.int64)
            place = torch.arange(words.numel(), device=words.device) % 65521
            sums = (int(words.sum()), int((words * (place + 1)).sum()))
            digest.update(repr(sums).encode())
            digest.update(part[part.numel() // 4 * 4 :].cpu().numpy().tobytes())
    return digest.hexdigest()
