"""Losses on the next-token distribution: of the adversary, and against it.

Each takes the states in front of the language-model head ([B, T, d]), the head, and the batch they
came from. Sources: reference page sections 1.1, 1.2 and 5; C.3 of the paper for why entropy.
"""

from __future__ import annotations

import math
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
    states: Tensor, head: Head, mask: Tensor, *, padding: str = INCLUDED, chunk: int = CHUNK
) -> Tensor:
    """The maximum-entropy objective: minus the mean entropy over positions, the last included.

    At best -ln V (-11.762 at V = 128,256). A scalar, nats.
    """
    return -entropies(counted_positions(states, mask, padding), head, chunk=chunk).mean()


def cross_entropy(states: Tensor, head: Head, labels: Tensor, *, chunk: int = CHUNK) -> Tensor:
    """Mean next-token cross-entropy over labels that are not -100; a scalar, nats a token.

    Raises:
        ValueError: No label at all: the mean does not exist.
    """
    picked, targets = _predicting(states, labels)
    return -log_probs(picked, head, targets, chunk=chunk).mean()


def negative_cross_entropy(
    states: Tensor,
    head: Head,
    labels: Tensor,
    *,
    highest: float = math.inf,
    chunk: int = CHUNK,
) -> Tensor:
    """Minus the cross-entropy, what the paper's C.3 compares entropy with and MLAC-AR uses.

    Args:
        states: [B, T, d].
        head: Language-model head.
        labels: [B, T] int64.
        highest: Where the mean stops to count (MLAC-AR: ln V, since it diverged without). Beyond
            it there is no gradient. Whether the authors clamp the mean or each token is not
            published; the mean is clamped here.
        chunk: Positions whose scores exist at once.
    """
    return -cross_entropy(states, head, labels, chunk=chunk).clamp(max=highest)


def inverse_cross_entropy(
    states: Tensor,
    head: Head,
    labels: Tensor,
    *,
    lowest_log_prob: float = -math.inf,
    chunk: int = CHUNK,
) -> Tensor:
    """Mean of -log(1 - p(label)): SOPHON's inverse cross-entropy, and Min Posterior's term.

    Args:
        states: [B, T, d].
        head: Language-model head.
        labels: [B, T] int64.
        lowest_log_prob: A label below this log-probability adds 0, and still counts in the mean
            (Min Posterior: -15; [CODE] modules/objectives.py ``log_1_minus_p_loss``).
        chunk: Positions whose scores exist at once.
    """
    picked, targets = _predicting(states, labels)
    both = log_probs_of_others(picked, head, targets, chunk=chunk)
    counts = both[:, 0].detach() >= lowest_log_prob
    return -both[:, 1].where(counts, 0.0).mean()


def _predicting(states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    if labels.shape != states.shape[:2]:
        raise ValueError(f"labels of {tuple(labels.shape)} for states of {tuple(states.shape)}")
    rows, columns, targets = predicting_positions(labels)
    if not len(targets):
        raise ValueError(f"every label is {IGNORE}: there is nothing to predict")
    return states[rows, columns], targets
