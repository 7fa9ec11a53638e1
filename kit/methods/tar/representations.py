"""Losses on hidden states: keeping them near the original model's, and mapping them to noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cosine_similarity

from kit.methods.tar.losses import INCLUDED, counted_positions
from kit.methods.tar.scores import at_least_fp32

if TYPE_CHECKING:
    from torch import Tensor

NORM = "norm"
SQUARED_NORM = "squared-norm"
DISTANCES = (NORM, SQUARED_NORM)
"""Equation 2 of the paper squares the norm; the released code does not."""


def representation_distance(
    layers: Sequence[Tensor],
    reference: Sequence[Tensor],
    mask: Tensor,
    *,
    distance: str = NORM,
    padding: str = INCLUDED,
    total: float | None = None,
) -> Tensor:
    """Mean over layers of the mean over positions of ||h - h_reference||, or of its square.

    Source: modules/objectives.py ``obj_model_mse_representations``; the paper gives no mean.

    Args:
        layers: [B, T, d] states of the model in training, a tensor a layer.
        reference: The same of the frozen original model; gradients stop there.
        mask: [B, T] bool, true on real tokens.
        distance: One of ``DISTANCES``.
        padding: Whether positions of padding count.
        total: Positions that the mean is over; those of this batch if not given.

    Returns:
        A scalar. At equal states its gradient is zero, for the norm too.

    Raises:
        ValueError: A reference of another shape, unknown names.
    """
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance {distance!r}; known: {', '.join(DISTANCES)}")
    ours, theirs = [tuple(t.shape) for t in layers], [tuple(t.shape) for t in reference]
    if ours != theirs or not ours:
        raise ValueError(
            f"the reference model has another shape: {len(theirs)} layers of "
            f"{theirs[0] if theirs else ()} against {len(ours)} of {ours[0] if ours else ()}"
        )
    means = []
    for state, original in zip(layers, reference, strict=True):
        difference = at_least_fp32(state) - at_least_fp32(original.detach())
        picked = counted_positions(difference, mask, padding)
        if distance == NORM:
            values = torch.linalg.vector_norm(picked, dim=-1)
        else:
            values = picked.square().sum(-1)
        means.append(values.sum() / (total or len(picked)))
    return torch.stack(means).mean()


def hashed_vectors(vocabulary: int, width: int, seed: int) -> Tensor:
    """A standard normal vector for each token id: [V, d] float32, the same on every machine.

    The released code draws it from whatever state the global generator is in
    (modules/training.py ``random_mapping_training_loop``), so ranks agree only by luck.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(vocabulary, width, generator=generator)


def random_mapping_loss(
    layers: Sequence[Tensor],
    ids: Tensor,
    vectors: Tensor,
    mask: Tensor,
    *,
    padding: str = INCLUDED,
    total: float | None = None,
) -> Tensor:
    """Mean over layers and positions of 1 - |cos(h, vector of the input token)|.

    Every layer is mapped to the same vector of a token. Source: the paper's appendix B on the
    initial safeguard (with the absolute value), modules/objectives.py ``random_vector_cosine_obj``.

    Args:
        layers: [B, T, d] states on forget data, a tensor a layer.
        ids: [B, T] int64 input tokens.
        vectors: [V, d] from ``hashed_vectors``.
        mask: [B, T] bool.
        padding: Whether positions of padding count.
        total: Positions that the mean is over; those of this batch if not given.

    Returns:
        A scalar between 0 and 1.
    """
    if not layers:
        raise ValueError("random mapping needs at least one layer")
    means = []
    for state in layers:
        wanted = counted_positions(vectors[ids].to(state.device), mask, padding)
        ours = at_least_fp32(counted_positions(state, mask, padding))
        cosine = cosine_similarity(ours, wanted.to(ours.dtype), dim=-1)
        means.append((1 - cosine.abs()).sum() / (total or len(cosine)))
    return torch.stack(means).mean()
