"""Rows of different lengths in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def left_pad(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Ids [B, T] int64 and mask [B, T] bool, true on prompt tokens, padding on the left."""
    width = max(len(prompt) for prompt in prompts)
    rows = [[pad_id] * (width - len(p)) + list(p) for p in prompts]
    masks = [[False] * (width - len(p)) + [True] * len(p) for p in prompts]
    return (
        torch.tensor(rows, dtype=torch.long, device=device),
        torch.tensor(masks, dtype=torch.bool, device=device),
    )


def positions(mask: Tensor) -> Tensor:
    """Position ids [B, T]: 0 at the first real token of each row, whatever stands left of it."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)
