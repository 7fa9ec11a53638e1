"""Cross-entropy behind a frozen output layer, whose gradient is made in the forward pass.

Nothing behind the output layer is trained, so the loss's gradient with respect to the hidden states
is known as soon as the scores are. Computing it at once lets the [N, V] scores be thrown away chunk
by chunk without ever computing them twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch

from kit.train.losses import weighted_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


def head_cross_entropy(
    hidden: Tensor,
    head: torch.nn.Module,
    targets: Tensor,
    weights: Tensor,
    *,
    chunk: int = 4096,
    compiled: bool = False,
) -> Tensor:
    """Sum over tokens of weight x cross-entropy; as ``weighted_cross_entropy``, same casts.

    Args:
        hidden: [N, d] states that predict the targets.
        head: The output layer. A frozen linear layer without bias takes the short way.
        targets: [N] int64.
        weights: [N] float32.
        chunk: Most tokens whose scores exist at once.
        compiled: Compile what happens between the two matrix products.

    Returns:
        A float32 scalar.
    """
    plain = type(head) is torch.nn.Linear and head.bias is None
    if not plain or cast("Tensor", head.weight).requires_grad:
        return weighted_cross_entropy(hidden, head, targets, weights, chunk=chunk)
    softmax = _compiled_softmax() if compiled else scores_gradient
    loss: Tensor = _FrozenHead.apply(hidden, head.weight, targets, weights, chunk, softmax)  # type: ignore[no-untyped-call]
    return loss


def scores_gradient(scores: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and its gradient with respect to the scores.

    Args:
        scores: [n, V] in the model's dtype; the arithmetic is fp32.
        targets: [n] int64.
        weights: [n] float32.

    Returns:
        A float32 scalar, and [n, V] in the dtype of the scores.
    """
    wide = scores.float()
    norm = wide.logsumexp(dim=1, keepdim=True)
    loss = ((norm - wide.gather(1, targets[:, None]))[:, 0] * weights).sum()
    hit = torch.arange(scores.shape[1], device=scores.device)[None] == targets[:, None]
    gradient = ((wide - norm).exp() - hit.float()) * weights[:, None]
    return loss, gradient.to(scores.dtype)


@cache
def _compiled_softmax() -> Callable[..., tuple[Tensor, Tensor]]:
    return torch.compile(scores_gradient, dynamic=True)


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        weights: Tensor,
        chunk: int,
        softmax: Callable[..., tuple[Tensor, Tensor]],
    ) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        for start in range(0, hidden.shape[0], chunk):
            rows = slice(start, start + chunk)
            scores = hidden[rows] @ weight.T
            loss, scores = softmax(scores, targets[rows], weights[rows])
            total += loss
            torch.mm(scores, weight, out=gradient[rows])
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0].to(gradient.dtype), None, None, None, None, None
