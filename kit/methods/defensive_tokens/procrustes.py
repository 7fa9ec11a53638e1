"""Orthogonal Procrustes between two embedding matrices.

W minimises ||X W - Y||_F over orthogonal W: with M = X^T Y = U S V^T it is U V^T
(defensive_tokens.md, 4). The published transfer uses all shared rows, no centring, no scale and no
weights; those are options here, off by default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Alignment:
    """An orthogonal map from source to target embeddings, and how good it is.

    Attributes:
        matrix: [d, d] float64, on the CPU; ``source @ matrix`` approximates the target.
        singular_values: [d] float64 of M, descending.
        scale: What :meth:`apply` multiplies with; 1 unless asked for.
        residual: ||X W - Y||_F, with the centring and weights of the fit and without scale.
        relative_residual: residual / ||Y||_F.
        source_norm: ||X||_F.
        target_norm: ||Y||_F.
        correlation: sum(S) / (||X|| ||Y||), 1 for a perfect rotation.
        optimal_scale: The isotropic scale that a scaled fit would use, sum(S) / ||X||^2.
        orthogonality_error: ||W^T W - I||_F.
        distance_from_identity: ||W - I||_F / ||I||_F; 0 is a plain copy, 1.41 a random rotation.
        mean_trace: trace(W) / d.
        unique: False when the smallest singular value is numerically zero: W is then arbitrary in
            that subspace and two correct implementations may disagree.
    """

    matrix: Tensor
    singular_values: Tensor
    scale: float
    residual: float
    relative_residual: float
    source_norm: float
    target_norm: float
    correlation: float
    optimal_scale: float
    orthogonality_error: float
    distance_from_identity: float
    mean_trace: float
    unique: bool

    def apply(self, vectors: Tensor) -> Tensor:
        """Map [n, d] source vectors into the target space; float64 inside, float32 out."""
        return (vectors.to("cpu", torch.float64) @ self.matrix * self.scale).to(torch.float32)


def orthogonal_map(
    source: Tensor,
    target: Tensor,
    *,
    center: bool = False,
    scale: bool = False,
    row_weights: Tensor | None = None,
    device: str | torch.device = "cpu",
    chunk_rows: int = 16384,
) -> Alignment:
    """Fit the orthogonal map of source rows to target rows.

    Everything is computed in float64, which TF32 settings cannot touch; row chunks of any dtype are
    upcast one at a time, so that no float64 copy of an embedding matrix exists.

    Args:
        source: [V, d], row i the same token as row i of the target.
        target: [V, d].
        center: Subtract each matrix's (weighted) mean row for the fit.
        scale: Let :meth:`Alignment.apply` multiply with the optimal isotropic scale.
        row_weights: [V] non-negative, or ``None`` for equal weights.
        device: Where to compute.
        chunk_rows: Rows upcast at once.

    Raises:
        ValueError: No rows, unequal shapes, values that are not finite, unusable weights.
    """
    _check(source, target, row_weights)
    weights = None if row_weights is None else row_weights.to(device, torch.float64)
    moments = _Moments(source, target, weights, center, torch.device(device), chunk_rows)
    cross = moments.cross
    # Any value that is not finite shows in its matrix's norm: no extra pass over the embeddings.
    for name, square in (("source", moments.source_sq), ("target", moments.target_sq)):
        if not math.isfinite(square):
            raise ValueError(f"the {name} embeddings contain values that are not finite")
    left, values, right = torch.linalg.svd(cross)
    matrix = left @ right
    d = cross.shape[0]
    source_sq, target_sq = moments.source_sq, moments.target_sq
    total = float((matrix * cross).sum())
    trace = float(matrix.trace())
    eye = torch.eye(d, dtype=torch.float64, device=matrix.device)
    residual = math.sqrt(max(source_sq + target_sq - 2 * total, 0.0))
    optimal = total / source_sq if source_sq else 0.0
    norms = math.sqrt(source_sq * target_sq)
    return Alignment(
        matrix=matrix.cpu(),
        singular_values=values.cpu(),
        scale=optimal if scale else 1.0,
        residual=residual,
        relative_residual=residual / math.sqrt(target_sq) if target_sq else math.inf,
        source_norm=math.sqrt(source_sq),
        target_norm=math.sqrt(target_sq),
        correlation=total / norms if norms else 0.0,
        optimal_scale=optimal,
        orthogonality_error=float((matrix.T @ matrix - eye).norm()),
        distance_from_identity=float((matrix - eye).norm()) / math.sqrt(d),
        mean_trace=trace / d,
        unique=float(values[-1]) > d * torch.finfo(torch.float64).eps * float(values[0]),
    )


def reverse(alignment: Alignment) -> Tensor:
    """The map of the other direction, [d, d] float64: the transpose, as the swapped M is M^T."""
    return alignment.matrix.T.contiguous()


def unit_length_weights(source: Tensor, target: Tensor, chunk_rows: int = 16384) -> Tensor:
    """Weights with which X^T Y is that of rows scaled to length 1: 1 / (||x|| ||y||), [V] float64.

    A row that is zero in either matrix has no direction and gets weight 0.
    """
    _check(source, target, None)
    products = []
    for start in range(0, len(source), chunk_rows):
        part = slice(start, start + chunk_rows)
        x, y = (matrix[part].to(torch.float64).norm(dim=1) for matrix in (source, target))
        products.append(x * y)
    product = torch.cat(products)
    return torch.where(product > 0, 1 / product.clamp(min=torch.finfo(torch.float64).tiny), 0.0)


class _Moments:
    """X^T Y and the squared norms, streamed over row chunks in float64."""

    def __init__(
        self,
        source: Tensor,
        target: Tensor,
        weights: Tensor | None,
        center: bool,
        device: torch.device,
        chunk_rows: int,
    ) -> None:
        d = source.shape[1]
        self.cross = torch.zeros(d, d, dtype=torch.float64, device=device)
        self.source_sq = 0.0
        self.target_sq = 0.0
        means = [torch.zeros(d, dtype=torch.float64, device=device) for _ in range(2)]
        chunks = range(0, source.shape[0], chunk_rows)

        def rows(matrix: Tensor, start: int) -> Tensor:
            # Moved before it is widened: .to(device, float64) would widen on the CPU and move four
            # times the bytes of bf16.
            return matrix[start : start + chunk_rows].to(device).to(torch.float64)

        def share(start: int, like: Tensor) -> Tensor:
            if weights is None:
                return torch.ones(len(like), 1, dtype=torch.float64, device=device)
            return weights[start : start + chunk_rows, None]

        if center:
            total = float(source.shape[0] if weights is None else weights.sum())
            for start in chunks:
                for mean, matrix in zip(means, (source, target), strict=True):
                    part = rows(matrix, start)
                    mean += (part * share(start, part)).sum(dim=0) / total
        for start in chunks:
            x = rows(source, start) - means[0]
            y = rows(target, start) - means[1]
            w = share(start, x)
            self.cross += (x * w).T @ y
            self.source_sq += float((x * x * w).sum())
            self.target_sq += float((y * y * w).sum())


def _check(source: Tensor, target: Tensor, weights: Tensor | None) -> None:
    if source.ndim != 2 or source.shape != target.shape:
        raise ValueError(
            f"source {tuple(source.shape)} and target {tuple(target.shape)} must be equal [V, d]"
        )
    if source.shape[0] == 0:
        raise ValueError("the vocabularies share no rows: there is nothing to align")
    if weights is not None:
        if weights.shape != (source.shape[0],):
            raise ValueError(f"row_weights of shape {tuple(weights.shape)} for {len(source)} rows")
        if bool((weights < 0).any()) or not bool(weights.sum() > 0):
            raise ValueError("row_weights must be non-negative and not all zero")
