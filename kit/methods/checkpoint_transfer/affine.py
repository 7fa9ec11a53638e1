"""Affine maps from an early checkpoint's residual stream to the final model's.

Per block, W and b minimise sum_i |W x_i + b - y_i|^2 + alpha |W|^2 over the tokens that are not
padding, x from the teacher (the early checkpoint) and y from the student, in closed form from
sums that are streamed in float64 (reference page, section 1.2). alpha is added to the sums, not to
their mean: with 10^5 tokens it is a safeguard against a singular matrix, not a regulariser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

ALPHA = 0.01
"""Ridge strength of the published maps (reference page, section 1.2)."""


@dataclass(frozen=True)
class AffineMap:
    """y = x W^T + b.

    Attributes:
        weight: [d_out, d_in], the layout of ``torch.nn.Linear``; never trained.
        bias: [d_out].
    """

    weight: Tensor
    bias: Tensor

    def __post_init__(self) -> None:
        """Refuse shapes that do not belong together."""
        if self.weight.dim() != 2 or self.bias.shape != self.weight.shape[:1]:
            raise ValueError(
                f"an affine map needs weight [d_out, d_in] and bias [d_out], not "
                f"{list(self.weight.shape)} and {list(self.bias.shape)}"
            )

    def __call__(self, states: Tensor) -> Tensor:
        """Map states [..., d_in] to [..., d_out], in the dtype of the weight.

        Raises:
            ValueError: States of another width.
        """
        if states.shape[-1] != self.weight.shape[1]:
            raise ValueError(
                f"states of width {states.shape[-1]} for a map of width {self.weight.shape[1]}: "
                "the map was fitted on another model"
            )
        return torch.nn.functional.linear(states.to(self.weight.dtype), self.weight, self.bias)

    def to(self, device: str | torch.device, dtype: torch.dtype) -> AffineMap:
        """The same map elsewhere, or in another precision (the published runs cast to fp16)."""
        return AffineMap(self.weight.to(device, dtype), self.bias.to(device, dtype))


@dataclass(frozen=True)
class FitQuality:
    """How well a map predicts the student's states.

    Attributes:
        tokens: Tokens measured; padding is none.
        mse: Mean squared error over tokens and width.
        r2: 1 - residual / total sum of squares around the mean, over all dimensions together.
    """

    tokens: int
    mse: float
    r2: float


class RidgeStatistics:
    """Streamed sums of one block's pairs of states; float64.

    The sums are taken around the first batch's mean. That changes no result, and keeps the
    subtraction ``X^T X - n mean mean^T`` from losing digits where a few dimensions of the residual
    stream are very large.

    Args:
        device: Where to accumulate: 8 (d_in^2 + d_in d_out) bytes (268 MB at d = 4096).
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.tokens = 0
        self._device = torch.device(device)
        self._origin: tuple[Tensor, Tensor] | None = None

    def add(self, source: Tensor, target: Tensor, mask: Tensor) -> None:
        """Take in one batch.

        Args:
            source: [..., d_in] teacher states, any float dtype.
            target: [..., d_out] student states at the same positions.
            mask: [...] bool; false where the position is padding.

        Raises:
            ValueError: Shapes that do not fit, or states that are not finite.
        """
        x, y = _kept(source, target, mask, self._device)
        if not len(x):
            return
        if self._origin is None:
            self._origin = (x.mean(0), y.mean(0))
            self._sum_x, self._sum_y = torch.zeros_like(x[0]), torch.zeros_like(y[0])
            self._xx = x.new_zeros(x.shape[1], x.shape[1])
            self._xy = x.new_zeros(x.shape[1], y.shape[1])
            self._yy = torch.zeros_like(y[0])
        if x.shape[1] != len(self._sum_x) or y.shape[1] != len(self._sum_y):
            raise ValueError(
                f"states of widths {x.shape[1]} and {y.shape[1]} after "
                f"{len(self._sum_x)} and {len(self._sum_y)}"
            )
        x, y = x - self._origin[0], y - self._origin[1]
        self.tokens += len(x)
        self._sum_x += x.sum(0)
        self._sum_y += y.sum(0)
        self._xx += x.T @ x
        self._xy += x.T @ y
        self._yy += (y * y).sum(0)

    def solve(self, alpha: float = ALPHA) -> tuple[AffineMap, FitQuality]:
        """The map and its error on the tokens that it was fitted on.

        Args:
            alpha: Added to the diagonal of the centred ``X^T X``.

        Returns:
            The map in float32, as the published maps are stored, and the quality of the float64
            solution.

        Raises:
            ValueError: No tokens, a negative alpha, or a system that has no unique solution.
        """
        if not self.tokens or self._origin is None:
            raise ValueError("no tokens to fit an affine map on: every position is padding")
        if alpha < 0:
            raise ValueError(f"alpha is {alpha}; a ridge strength is not negative")
        n = self.tokens
        mean_x, mean_y = self._sum_x / n, self._sum_y / n
        cov_xx = self._xx - n * torch.outer(mean_x, mean_x)
        cov_xy = self._xy - n * torch.outer(mean_x, mean_y)
        total = float((self._yy - n * mean_y.square()).sum())
        ridge = cov_xx + alpha * torch.eye(len(mean_x), dtype=torch.float64, device=self._device)
        factor, info = torch.linalg.cholesky_ex(ridge)
        if int(info):
            raise ValueError(
                f"{n} tokens do not determine a map of width {len(mean_x)}; use more, or alpha > 0"
            )
        solution = torch.cholesky_solve(cov_xy, factor)
        residual = total - 2 * float((solution * cov_xy).sum())
        residual += float((solution * (cov_xx @ solution)).sum())
        bias = self._origin[1] + mean_y - (self._origin[0] + mean_x) @ solution
        quality = _quality(n, max(residual, 0.0), total, cov_xy.shape[1])
        return AffineMap(solution.T.contiguous().float(), bias.float()), quality


class HeldOutError:
    """Error of a given map on tokens that it was not fitted on; streamed, in float64.

    Args:
        affine: The map, or ``None`` to measure how far the raw teacher states are.
        device: Where to compute.
    """

    def __init__(self, affine: AffineMap | None, device: str | torch.device = "cpu") -> None:
        self._device = torch.device(device)
        self._map = None if affine is None else affine.to(self._device, torch.float64)
        self._tokens = 0
        self._residual = 0.0
        self._origin: Tensor | None = None

    def add(self, source: Tensor, target: Tensor, mask: Tensor) -> None:
        """Take in one batch, with the arguments of :meth:`RidgeStatistics.add`."""
        x, y = _kept(source, target, mask, self._device)
        if not len(x):
            return
        predicted = x if self._map is None else self._map(x)
        self._residual += float((predicted - y).square().sum())
        if self._origin is None:
            self._origin = y.mean(0)
            self._sum, self._square = torch.zeros_like(y[0]), torch.zeros_like(y[0])
        self._tokens += len(y)
        self._sum += (y - self._origin).sum(0)
        self._square += (y - self._origin).square().sum(0)

    def result(self) -> FitQuality:
        """What was measured.

        Raises:
            ValueError: Nothing was.
        """
        if not self._tokens:
            raise ValueError("no held-out tokens to measure an affine map on")
        total = float((self._square - self._sum.square() / self._tokens).sum())
        return _quality(self._tokens, self._residual, total, len(self._sum))


def maps_for(
    maps: Mapping[int, AffineMap], blocks: Sequence[int], *, width: int, depth: int
) -> dict[int, AffineMap]:
    """The maps of the blocks that a run needs, checked against the model.

    The published code falls back to raw teacher states where a layer has no map (reference page,
    section 1.3); here that is an error.

    Args:
        maps: Block (0-based; -1 is what enters block 0) -> map.
        blocks: The blocks that are needed.
        width: Hidden size of the model.
        depth: Its number of blocks.

    Raises:
        ValueError: A block beyond the model, without a map, or with a map of another width.
    """
    for block in blocks:
        if not -1 <= block < depth:
            raise ValueError(f"block {block} of a model with blocks 0 to {depth - 1}")
        if block not in maps:
            known = ", ".join(map(str, sorted(maps))) or "none"
            raise ValueError(f"no affine map for block {block}; there are maps for: {known}")
        shape = tuple(maps[block].weight.shape)
        if shape != (width, width):
            raise ValueError(
                f"the affine map of block {block} is {shape[1]} to {shape[0]} wide, the model "
                f"{width}: it belongs to another model"
            )
    return {block: maps[block] for block in blocks}


def _kept(
    source: Tensor, target: Tensor, mask: Tensor, device: torch.device
) -> tuple[Tensor, Tensor]:
    """States of the positions that are not padding, [n, d] float64."""
    if source.shape[:-1] != mask.shape or target.shape[:-1] != mask.shape:
        raise ValueError(
            f"states {list(source.shape)} and {list(target.shape)} do not fit a mask of "
            f"{list(mask.shape)}"
        )
    kept = mask.bool()
    x = source[kept.to(source.device)].to(device).to(torch.float64)
    y = target[kept.to(target.device)].to(device).to(torch.float64)
    if not bool(x.isfinite().all()) or not bool(y.isfinite().all()):
        raise ValueError("states that are not finite: no affine map can be fitted on them")
    return x, y


def _quality(tokens: int, residual: float, total: float, width: int) -> FitQuality:
    r2 = 1 - residual / total if total > 0 else (1.0 if residual == 0 else float("-inf"))
    return FitQuality(tokens, residual / (tokens * width), r2)
