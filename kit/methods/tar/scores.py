"""What a loss needs to know of the next-token distribution, without keeping it in memory.

One pass over 64 x 256 tokens of a vocabulary of 128,256 would be 8 GB of fp32 scores a copy, and
an entropy needs several. The functions here take the states in front of the language-model head
and compute scores chunk by chunk, again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from torch import Tensor

Head = Callable[["Tensor"], "Tensor"]
"""Maps [n, d] states to [n, V] scores: the model's output embedding."""

CHUNK = 2048
"""Positions whose scores exist at once: 1.05 GB of fp32 at a vocabulary of 128,256."""


def at_least_fp32(tensor: Tensor) -> Tensor:
    """bf16 and fp16 become fp32, as HF 4.43 did with logits; fp32 and fp64 stay as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def per_position(
    part: Callable[..., Tensor], tensors: Sequence[Tensor], *, chunk: int = CHUNK
) -> Tensor:
    """Apply ``part`` to slices along the first dimension and join what it returns.

    Args:
        part: Maps slices [n, ...] to values [n, ...]; each position alone.
        tensors: Of equal first dimension N.
        chunk: Most positions at once. With more than one chunk, ``part`` runs again in the
            backward pass instead of keeping its intermediate values.

    Raises:
        ValueError: A chunk below 1, or no positions.
    """
    if chunk < 1:
        raise ValueError(f"a chunk of {chunk} positions holds none")
    count = tensors[0].shape[0]
    if count == 0:
        raise ValueError("no positions to compute a loss from")
    if count <= chunk:
        return part(*tensors)
    pieces = [
        checkpoint(part, *(t[start : start + chunk] for t in tensors), use_reentrant=False)
        for start in range(0, count, chunk)
    ]
    return torch.cat(pieces)


def entropies(states: Tensor, head: Head, *, chunk: int = CHUNK) -> Tensor:
    """Entropy of the next-token distribution after each of [N, d] states, in nats; [N]."""

    def part(piece: Tensor) -> Tensor:
        log_p = torch.log_softmax(at_least_fp32(head(piece)), dim=-1)
        return -(log_p.exp() * log_p).sum(-1)

    return per_position(part, [states], chunk=chunk)


def log_probs(states: Tensor, head: Head, targets: Tensor, *, chunk: int = CHUNK) -> Tensor:
    """log p(target) after each of [N, d] states; targets [N] int64; [N] nats."""

    def part(piece: Tensor, wanted: Tensor) -> Tensor:
        scores = at_least_fp32(head(piece))
        return -torch.nn.functional.cross_entropy(scores, wanted, reduction="none")

    return per_position(part, [states, targets], chunk=chunk)


def log_probs_of_others(
    states: Tensor, head: Head, targets: Tensor, *, chunk: int = CHUNK
) -> Tensor:
    """log p and log(1 - p) of each target: [N, 2] nats.

    log(1 - p) is the log-sum-exp over all other tokens less that over all, which stays exact when
    p rounds to 1 (the released code does the same, modules/objectives.py ``log_1_minus_p_loss``).
    """

    def part(piece: Tensor, wanted: Tensor) -> Tensor:
        scores = at_least_fp32(head(piece))
        every = torch.logsumexp(scores, dim=-1)
        others = scores.scatter(1, wanted[:, None], -torch.inf)
        log_p = scores.gather(1, wanted[:, None])[:, 0] - every
        return torch.stack([log_p, torch.logsumexp(others, dim=-1) - every], dim=1)

    return per_position(part, [states, targets], chunk=chunk)
