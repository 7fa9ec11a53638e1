"""How big the vectors are and where they point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Geometry:
    """Per-vector facts of a prefix, next to another one.

    Attributes:
        norms: L2 norm of each vector.
        l1_norms: L1 norm of each vector (DTP, Table 2, reports these).
        largest: Largest absolute coordinate of each vector.
        reference_norms: L2 norms of the reference prefix.
        cosines: Cosine of vector i with reference vector i.
        cross_cosines: n x n cosines with all reference vectors, row by row.
        mean_within: Mean cosine between different vectors of the prefix; 0 when there is only one.
    """

    norms: list[float]
    l1_norms: list[float]
    largest: list[float]
    reference_norms: list[float]
    cosines: list[float]
    cross_cosines: list[list[float]]
    mean_within: float


def geometry(prefix: Tensor, reference: Tensor) -> Geometry:
    """Compare a prefix [n, d] with a reference [n, d] (before alignment, native, initial, ...).

    Raises:
        ValueError: Unequal shapes.
    """
    if prefix.shape != reference.shape or prefix.ndim != 2:
        raise ValueError(f"prefix {tuple(prefix.shape)}, reference {tuple(reference.shape)}")
    a, b = prefix.to("cpu", torch.float64), reference.to("cpu", torch.float64)
    cross = cosines(a, b)
    within = cosines(a, a)
    n = len(a)
    off_diagonal = float(within.sum() - within.trace()) / (n * (n - 1)) if n > 1 else 0.0
    return Geometry(
        norms=a.norm(dim=1).tolist(),
        l1_norms=a.abs().sum(dim=1).tolist(),
        largest=a.abs().amax(dim=1).tolist(),
        reference_norms=b.norm(dim=1).tolist(),
        cosines=cross.diagonal().tolist(),
        cross_cosines=cross.tolist(),
        mean_within=off_diagonal,
    )


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """All cosines between rows, [n, m] float64; a zero row has cosine 0 with everything."""
    a64, b64 = a.to("cpu", torch.float64), b.to("cpu", torch.float64)
    tiny = torch.finfo(torch.float64).tiny
    a64 = a64 / a64.norm(dim=1, keepdim=True).clamp(min=tiny)
    b64 = b64 / b64.norm(dim=1, keepdim=True).clamp(min=tiny)
    product: Tensor = a64 @ b64.T
    return product
