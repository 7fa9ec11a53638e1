"""Moving a prefix from one model's input space to another's, and the controls.

The controls matter: on the miniature worlds a plain copy sometimes beats the aligned prefix, and a
prefix trained from a random start catches up within tens of steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kit.methods.defensive_tokens.procrustes import Alignment

if TYPE_CHECKING:
    from torch import Tensor


def transfer(prefix: Tensor, alignment: Alignment) -> Tensor:
    """T_t = T_s W, [n, d] float32 (defensive_tokens.md, 4)."""
    _same_width(prefix, alignment.matrix.shape[0])
    return alignment.apply(prefix)


def direct_copy(prefix: Tensor, target_width: int) -> Tensor:
    """The prefix unchanged: what is left when W is taken for the identity.

    Raises:
        ValueError: The target model has another width.
    """
    _same_width(prefix, target_width)
    return prefix.detach().to("cpu", torch.float32, copy=True)


def norm_rescaled(prefix: Tensor, native: Tensor) -> Tensor:
    """Each vector scaled to the norm of the target's own trained vector of the same index.

    This is the follow-up's norm ablation: its "factor 1.028" is the ratio of mean norms of the
    released Llama-3.1 and Llama-3 tokens (85.346 / 83.024), not a ratio of vocabulary norms. It
    needs a natively trained prefix, so it is an ablation and not a method.

    Args:
        prefix: [n, d].
        native: [n, d], the target's own prefix.
    """
    if prefix.shape != native.shape:
        raise ValueError(f"prefix {tuple(prefix.shape)} and native {tuple(native.shape)} differ")
    prefix64, native64 = prefix.to("cpu", torch.float64), native.to("cpu", torch.float64)
    factors = native64.norm(dim=1, keepdim=True) / prefix64.norm(dim=1, keepdim=True)
    scaled: Tensor = prefix64 * factors
    return scaled.to(torch.float32)


def vocabulary_rescaled(prefix: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """The prefix times mean row norm of the target vocabulary over that of the source.

    For Llama-3 to Llama-3.1 the factor is 0.671 / 0.591 = 1.135 (defensive_tokens.md, 4). Needs
    no native prefix.

    Args:
        prefix: [n, d].
        source: [V, d] source vocabulary embeddings.
        target: [V, d] target vocabulary embeddings.
    """
    factor = mean_row_norm(target) / mean_row_norm(source)
    return (prefix.to("cpu", torch.float64) * factor).to(torch.float32)


def mean_row_norm(matrix: Tensor, chunk_rows: int = 16384) -> float:
    """Mean L2 norm of the rows, in float64."""
    if len(matrix) == 0:
        raise ValueError("a matrix without rows has no mean row norm")
    starts = range(0, len(matrix), chunk_rows)
    parts = (matrix[i : i + chunk_rows].to(torch.float64).norm(dim=1) for i in starts)
    return sum(float(norms.sum()) for norms in parts) / len(matrix)


def random_rotation_like(matrix: Tensor, seed: int) -> Tensor:
    """Q W Q^T for a Haar-random orthogonal Q: equal rotation angles in random planes.

    It moves vectors on average as far as W does (||R - I||_F = ||W - I||_F exactly), in directions
    that know nothing of the two models.

    Args:
        matrix: [d, d] orthogonal.
        seed: Of Q.

    Returns:
        [d, d] float64.
    """
    w = matrix.to("cpu", torch.float64)
    q = haar_orthogonal(w.shape[0], seed)
    rotated: Tensor = q @ w @ q.T
    return rotated


def haar_orthogonal(d: int, seed: int) -> Tensor:
    """A uniformly random orthogonal matrix, [d, d] float64."""
    gaussian = torch.randn(d, d, dtype=torch.float64, generator=_generator(seed))
    q, r = torch.linalg.qr(gaussian)
    # Without the signs of R's diagonal the distribution depends on QR's convention (Mezzadri 2007).
    signed: Tensor = q * r.diagonal().sign()
    return signed


def random_like_norm(prefix: Tensor, seed: int) -> Tensor:
    """Random directions with the norms of the given vectors, [n, d] float32."""
    shape = prefix.shape
    directions = torch.randn(shape, dtype=torch.float64, generator=_generator(seed))
    norms = prefix.to("cpu", torch.float64).norm(dim=1, keepdim=True)
    scaled: Tensor = directions / directions.norm(dim=1, keepdim=True) * norms
    return scaled.to(torch.float32)


def normal_init(n: int, d: int, seed: int) -> Tensor:
    """t ~ N(0, I), [n, d] float32 (DTP, Algorithm 1)."""
    return torch.randn(n, d, generator=_generator(seed))


def vocabulary_init(embeddings: Tensor, n: int, seed: int) -> Tensor:
    """Normal with the vocabulary's mean and standard deviation per coordinate, [n, d] float32."""
    table = embeddings.to("cpu", torch.float32)
    noise = torch.randn(n, table.shape[1], generator=_generator(seed))
    return table.mean(dim=0) + noise * table.std(dim=0)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _same_width(prefix: Tensor, width: int) -> None:
    if prefix.ndim != 2 or prefix.shape[1] != width:
        raise ValueError(f"a prefix of shape {tuple(prefix.shape)} does not fit a width of {width}")
