"""Losses on the next-token distribution: of the adversary, and against it.

Each takes the states in front of the language-model head ([B, T, d]), the head, and the batch they
came from. Alone, a loss is a mean over the batch; with ``weights`` or ``total`` it is this
micro-batch's share of the mean over a larger batch. Sources: docs/methods/tar.md; C.3 of the paper
for why entropy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from kit.methods.tar.scores import CHUNK, Head, entropies, log_probs, log_probs_of_others
from kit.train.batching import IGNORE
from kit.train.losses import predicting_positions

if TYPE_CHECKING:
    from torch import Tensor

INCLUDED = "included"
MASKED = "masked"
PADDING = (INCLUDED, MASKED)
"""Whether positions of padding count: the released code includes them in the entropy and in the
representation term (its losses see no mask); the paper speaks of tokens."""


def counted_positions(states: Tensor, mask: Tensor, padding: str) -> Tensor:
    """The [N, d] states that count: all B x T, or those of real tokens.

    Args:
        states: [B, T, d].
        mask: [B, T] bool, true on real tokens.
        padding: One of ``PADDING``.

    Raises:
        ValueError: Unknown name, or a mask of another shape.
    """
    if padding not in PADDING:
        raise ValueError(f"unknown padding {padding!r}; known: {', '.join(PADDING)}")
    if mask.shape != states.shape[:2]:
        raise ValueError(f"a mask of {tuple(mask.shape)} for states of {tuple(states.shape)}")
    return states[mask] if padding == MASKED else states.flatten(0, 1)


def negative_entropy(
    states: Tensor,
    head: Head,
    mask: Tensor,
    *,
    padding: str = INCLUDED,
    total: float | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """The maximum-entropy objective: minus the mean entropy over positions, the last included.

    At best -ln V (-11.762 at V = 128,256). A scalar, nats.

    Args:
        states: [B, T, d].
        head: Language-model head.
        mask: [B, T] bool, true on real tokens.
        padding: One of ``PADDING``.
        total: Positions that the mean is over; those of this batch if not given.
        chunk: Positions whose scores exist at once.
    """
    picked = counted_positions(states, mask, padding)
    return -entropies(picked, head, chunk=chunk).sum() / (total or len(picked))


def cross_entropy(
    states: Tensor,
    head: Head,
    labels: Tensor,
    *,
    weights: Tensor | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """Next-token cross-entropy over labels that are not -100; a scalar, nats a token.

    Args:
        states: [B, T, d].
        head: Language-model head.
        labels: [B, T] int64.
        weights: [B] of a label token of each row; all equal, adding up to 1, if not given.
        chunk: Positions whose scores exist at once.

    Raises:
        ValueError: No label at all: the mean does not exist.
    """
    return _mean_over_labels(
        states,
        labels,
        weights,
        lambda picked, targets: -log_probs(picked, head, targets, chunk=chunk),
    )


def negative_cross_entropy(
    states: Tensor,
    head: Head,
    labels: Tensor,
    *,
    highest: float = math.inf,
    weights: Tensor | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """Minus the cross-entropy, what the paper's C.3 compares entropy with and MLAC-AR uses.

    Args:
        states: [B, T, d].
        head: Language-model head.
        labels: [B, T] int64.
        highest: Where a token stops to count (MLAC-AR: ln V, since it diverged without). Beyond it
            there is no gradient. Whether the authors clamp each token or the mean is not
            published; tokens are clamped here, so that micro-batches add up.
        weights: [B] as in ``cross_entropy``.
        chunk: Positions whose scores exist at once.
    """

    def clamped(picked: Tensor, targets: Tensor) -> Tensor:
        return log_probs(picked, head, targets, chunk=chunk).clamp(min=-highest)

    return _mean_over_labels(states, labels, weights, clamped)


def inverse_cross_entropy(
    states: Tensor,
    head: Head,
    labels: Tensor,
    *,
    lowest_log_prob: float = -math.inf,
    weights: Tensor | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """Mean of -log(1 - p(label)): SOPHON's inverse cross-entropy, and Min Posterior's term.

    Args:
        states: [B, T, d].
        head: Language-model head.
        labels: [B, T] int64.
        lowest_log_prob: A label below this log-probability adds 0, and still counts in the mean
            (Min Posterior: -15; [CODE] modules/objectives.py ``log_1_minus_p_loss``).
        weights: [B] as in ``cross_entropy``.
        chunk: Positions whose scores exist at once.
    """

    def above(picked: Tensor, targets: Tensor) -> Tensor:
        both = log_probs_of_others(picked, head, targets, chunk=chunk)
        counts = both[:, 0].detach() >= lowest_log_prob
        return -both[:, 1].where(counts, 0.0)

    return _mean_over_labels(states, labels, weights, above)


def _mean_over_labels(
    states: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    values: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    if labels.shape != states.shape[:2]:
        raise ValueError(f"labels of {tuple(labels.shape)} for states of {tuple(states.shape)}")
    rows, columns, targets = predicting_positions(labels)
    if not len(targets):
        if weights is None:
            raise ValueError(f"every label is {IGNORE}: there is nothing to predict")
        return states.sum() * 0  # the global batch's labels are all in other micro-batches
    by_label = values(states[rows, columns], targets)
    return by_label.mean() if weights is None else (by_label * weights[rows]).sum()
