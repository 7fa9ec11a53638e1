"""Affine maps of two models, fitted and measured on text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kit.lm.hidden import block_outputs
from kit.methods.checkpoint_transfer.affine import (
    ALPHA,
    AffineMap,
    FitQuality,
    HeldOutError,
    RidgeStatistics,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class FittedMaps:
    """Maps and how good they are, each by block.

    Attributes:
        maps: Teacher states to student states.
        fit: Error on the tokens of the fit; the published numbers are of this kind, although their
            code calls them held-out (reference page, section 1.2).
        held_out: Error on other tokens.
        unmapped: Error of the raw teacher states on the held-out tokens.
    """

    maps: dict[int, AffineMap]
    fit: dict[int, FitQuality]
    held_out: dict[int, FitQuality]
    unmapped: dict[int, FitQuality]


def fit_maps(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    batches: Iterable[Batch],
    held_out: Iterable[Batch],
    blocks: Sequence[int],
    *,
    alpha: float = ALPHA,
) -> FittedMaps:
    """Fit one map a block, in one pass over the text of each kind.

    Args:
        teacher: The early checkpoint.
        student: The final model, before unlearning.
        batches: Pairs of ids [B, T] int64 and mask [B, T] bool.
        held_out: The same, of other text.
        blocks: Blocks, 0-based; -1 is what enters block 0.
        alpha: Ridge strength.

    Raises:
        ValueError: Unequal widths or depths, a block that is not there, no tokens.
    """
    _check_pair(teacher, student)
    device = student.device
    statistics = {block: RidgeStatistics(device) for block in blocks}
    for ids, mask in batches:
        for block, (x, y) in _states(teacher, student, ids, mask, blocks).items():
            statistics[block].add(x, y, mask)
    solved = {block: statistics[block].solve(alpha) for block in blocks}
    mapped = {block: HeldOutError(solved[block][0], device) for block in blocks}
    raw = {block: HeldOutError(None, device) for block in blocks}
    for ids, mask in held_out:
        for block, (x, y) in _states(teacher, student, ids, mask, blocks).items():
            mapped[block].add(x, y, mask)
            raw[block].add(x, y, mask)
    return FittedMaps(
        maps={block: solved[block][0] for block in blocks},
        fit={block: solved[block][1] for block in blocks},
        held_out={block: mapped[block].result() for block in blocks},
        unmapped={block: raw[block].result() for block in blocks},
    )


def _states(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    ids: Tensor,
    mask: Tensor,
    blocks: Sequence[int],
) -> dict[int, tuple[Tensor, Tensor]]:
    with torch.no_grad():
        x = block_outputs(teacher, ids, mask, blocks)
        y = block_outputs(student, ids, mask, blocks)
    return {block: (x[block], y[block]) for block in blocks}


def _check_pair(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    for name in ("hidden_size", "num_hidden_layers", "vocab_size"):
        ours, theirs = getattr(student.config, name), getattr(teacher.config, name)
        if ours != theirs:
            raise ValueError(f"{name} is {theirs} in the teacher and {ours} in the student")
