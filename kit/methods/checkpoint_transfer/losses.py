"""The losses of checkpoint transfer; all in float32, all means over the tokens of a micro-batch.

Sources: reference page, sections 1.4 (remove), 1.5 (retain).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from kit.methods.checkpoint_transfer.affine import AffineMap

if TYPE_CHECKING:
    from torch import Tensor

RETAIN_LOSSES = ("kl", "cross-entropy", "hidden-states")


def mapped_targets(
    teacher: Mapping[int, Tensor],
    maps: Mapping[int, AffineMap] | None,
    mask: Tensor | None,
    map_of: Mapping[int, int] | None = None,
) -> dict[int, Tensor]:
    """What the student's states are pulled to.

    Args:
        teacher: Block -> teacher states [B, T, d] on forget text.
        maps: Block -> affine map; ``None`` takes the raw states, as the reported epoch sweep does.
        mask: [B, T] bool, false on padding; ``None`` without padding, in all losses.
        map_of: Block -> the block whose map is applied to its states; by default its own. The
            second version of the published code applies the map of the block before (section 1.3).

    Returns:
        Block -> [n, d], the n positions that are not padding in row-major order, without gradient.

    Raises:
        ValueError: A block without a map.
    """
    targets = {}
    for block, states in teacher.items():
        rows = rows_of(states.detach(), mask)
        if maps is not None:
            source = block if map_of is None else map_of[block]
            if source not in maps:
                raise ValueError(f"no affine map for block {source}; raw states are no substitute")
            rows = maps[source](rows)
        targets[block] = rows
    return targets


def remove_loss(
    student: Mapping[int, Tensor], targets: Mapping[int, Tensor], mask: Tensor | None
) -> Tensor:
    """Mean over blocks, tokens and width of the squared distance to the targets.

    Args:
        student: Block -> states [B, T, d] of the model that is trained, on forget text.
        targets: Block -> [n, d] from :func:`mapped_targets`, for the same blocks.
        mask: [B, T] bool with n true positions.

    Returns:
        A float32 scalar: the log's ``cb_loss``, without coefficient.

    Raises:
        ValueError: Other blocks, or other numbers of tokens, than the targets have; no token.
    """
    if not targets or student.keys() != targets.keys():
        raise ValueError(f"states of blocks {sorted(student)}, targets of {sorted(targets)}")
    parts = []
    for block, target in targets.items():
        states = rows_of(student[block], mask)
        if states.shape != target.shape or not len(states):
            raise ValueError(
                f"block {block}: {list(states.shape)} student states for {list(target.shape)} "
                "targets; a micro-batch needs at least one token"
            )
        parts.append((states.float() - target.float()).square().mean())
    return torch.stack(parts).mean()


def kl_retain(reference: Tensor, logits: Tensor, mask: Tensor | None) -> Tensor:
    """Forward KL(reference || model), mean over tokens; the reference weighs, as published.

    Every position that is not padding counts, the last one too (section 1.5).

    Args:
        reference: [n, V] logits of the model before unlearning, at the n positions that are not
            padding in row-major order.
        logits: [B, T, V] logits of the model that is trained.
        mask: [B, T] bool with n true positions.

    Raises:
        ValueError: Shapes that differ, or no token.
    """
    rows = _counted(logits, mask)
    if reference.shape != rows.shape:
        raise ValueError(f"logits {list(rows.shape)}, reference {list(reference.shape)}")
    aims = log_softmax(reference.detach().float(), dim=-1)
    log_probs = log_softmax(rows.float(), dim=-1)
    return kl_div(log_probs, aims, reduction="none", log_target=True).sum(-1).mean()


def cross_entropy_retain(ids: Tensor, logits: Tensor, mask: Tensor | None) -> Tensor:
    """Next-token cross-entropy, mean over the tokens that are predicted.

    Args:
        ids: [B, T] int64.
        logits: [B, T, V].
        mask: [B, T] bool; a token on padding is not predicted.

    Raises:
        ValueError: Nothing to predict.
    """
    predicted = None if mask is None else mask[:, 1:]
    scores = _counted(logits[:, :-1], predicted)
    return cross_entropy(scores.float(), rows_of(ids[:, 1:], predicted))


def hidden_retain(
    reference: Mapping[int, Tensor], student: Mapping[int, Tensor], mask: Tensor | None
) -> Tensor:
    """Remove loss with the student's own states before unlearning as targets.

    Args:
        reference: Block -> states [B, T, d] of the model before unlearning, on retain text.
        student: Block -> states [B, T, d] of the model that is trained.
        mask: [B, T] bool.
    """
    return remove_loss(student, mapped_targets(reference, None, mask), mask)


def rows_of(states: Tensor, mask: Tensor | None) -> Tensor:
    """[n, d] of the n true positions of [B, T, d], in row-major order; no copy if all are."""
    return states.flatten(0, 1) if mask is None or bool(mask.all()) else states[mask.bool()]


def _counted(states: Tensor, mask: Tensor | None) -> Tensor:
    """The same, of a loss that needs a token."""
    rows = rows_of(states, mask)
    if not len(rows):
        raise ValueError("a micro-batch needs at least one token that is not padding")
    return rows
