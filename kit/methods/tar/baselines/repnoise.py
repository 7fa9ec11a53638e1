"""RepNoise (Rosati et al. 2024): make harmful states look like Gaussian noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kit.lm.model import decoder_layers, final_norm
from kit.methods.tar.baselines.common import RETAIN
from kit.methods.tar.baselines.recipe import Term
from kit.methods.tar.forward import Pass, forward
from kit.methods.tar.losses import cross_entropy
from kit.methods.tar.objectives import language_model_loss
from kit.methods.tar.scores import at_least_fp32
from kit.methods.tar.settings import HIDDEN_STATES
from kit.train.batching import IGNORE

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.methods.tar.batches import Counted
    from kit.train.batching import Batch

PAIRS = "pairs"
"""Stream of (harmful, harmless) examples."""
RELEASED = "domenicrosati/repnoise_0.001_beta"
"""Llama-2-7b-chat; whether the TAR paper trained its own on Llama-3 could not be found out."""
BETA = 0.001
ALPHA = 1.0
"""representation_noising/loss.py of the authors' repository, which warns that both need a grid
search for every model."""


def maximum_mean_discrepancy(
    first: Tensor, second: Tensor, *, kernels: int = 5, ratio: float = 2.0
) -> Tensor:
    """Biased squared MMD of two samples under a sum of Gaussian kernels; a scalar.

    Bandwidths are the mean squared distance between different points of both samples, times
    ratio^-2 .. ratio^2 for five kernels; they carry no gradient (loss.py ``MMD_loss``).

    Args:
        first: [n, d].
        second: [n, d], as many rows.
        kernels: Number of bandwidths.
        ratio: Between neighbours.

    Raises:
        ValueError: Samples of different shape.
    """
    if first.shape != second.shape:
        raise ValueError(f"samples of {tuple(first.shape)} and {tuple(second.shape)}")
    points = torch.cat([first, second])
    count = len(points)
    # Differences, not torch.cdist, whose gradient at distance zero is not defined.
    squares = (points[:, None] - points[None]).square().sum(-1)
    middle = squares.detach().sum() / (count * count - count)
    widths = [middle * ratio ** (i - kernels // 2) for i in range(kernels)]
    kernel = torch.stack([torch.exp(-squares / width) for width in widths]).sum(0)
    half = len(first)
    within = kernel[:half, :half] + kernel[half:, half:]
    return (within - kernel[:half, half:] - kernel[half:, :half]).mean()


def repnoise(
    *,
    generator: torch.Generator,
    beta: float = BETA,
    alpha: float = ALPHA,
    offset: float = 1.0,
    retain_scale: float = 0.0,
) -> tuple[Term, ...]:
    """CE(harmless) + beta mean_layers MMD(h, noise) - alpha log(offset + mean_layers CE(harmful)).

    The pairs are answers to the same prompt, and only tokens that differ count. Of the released
    code's loss.py three things are not repeated: it sets the scores in front of some labels to zero
    and drops token 0 (here a label counts where it differs); it puts the final norm onto the last
    state, which has it already; and it adds the cross-entropy of the output to those of the layers
    before it divides by their number. Neither the discrepancy nor the logarithm adds up over
    micro-batches: with several, each has its own, as it is on several GPUs in the released code.

    Args:
        generator: Draws the noise, on the CPU.
        beta: Of the noise term.
        alpha: Of the ascent term.
        offset: 1 in the released code, 0 in the formula.
        retain_scale: Of the cross-entropy on a stream of benign answers, which RepNoise does not
            have; 0 leaves it out.
    """

    def harmless_loss(model: PreTrainedModel, pair: tuple[Counted, Counted]) -> Tensor:
        harmful, harmless = (counted.batch for counted in pair)
        out = forward(model, harmless)
        labels = _labels(harmless, _differences(harmful, harmless))
        return pair[0].micro.row_share * cross_entropy(out.states, out.head, labels)

    def harmful_loss(model: PreTrainedModel, pair: tuple[Counted, Counted]) -> Tensor:
        harmful, harmless = (counted.batch for counted in pair)
        differs = _differences(harmful, harmless)
        out, activations = _with_mlp_outputs(model, harmful)
        keep = differs[..., None]
        noisy = []
        for value in activations:
            noise = torch.randn(value.shape, generator=generator).to(value)
            first, second = ((at_least_fp32(t) * keep).flatten(1) for t in (value, noise))
            noisy.append(maximum_mean_discrepancy(first, second))
        labels = _labels(harmful, differs)
        # The last hidden state is behind the final norm already.
        norm = final_norm(model)
        normed = [*(norm(h) for h in out.layers[:-1]), out.layers[-1]]
        ascent = torch.stack([cross_entropy(h, out.head, labels) for h in normed]).mean()
        loss = beta * torch.stack(noisy).mean() - alpha * torch.log(offset + ascent)
        return pair[0].micro.row_share * loss

    def benign_loss(model: PreTrainedModel, counted: Counted) -> Tensor:
        return retain_scale * language_model_loss(model, counted)

    published = (
        Term("harmless", (PAIRS,), harmless_loss),
        Term("harmful-noise-and-ascent", (PAIRS,), harmful_loss),
    )
    return (*published, Term("benign", (RETAIN,), benign_loss)) if retain_scale else published


def _with_mlp_outputs(model: PreTrainedModel, batch: Batch) -> tuple[Pass, list[Tensor]]:
    activations: list[Tensor] = []
    blocks: Any = decoder_layers(model)
    hooks = [
        block.mlp.register_forward_hook(lambda _m, _i, value: activations.append(value))
        for block in blocks
    ]
    try:
        return forward(model, batch, layers=HIDDEN_STATES), activations
    finally:
        for hook in hooks:
            hook.remove()


def _differences(harmful: Batch, harmless: Batch) -> Tensor:
    """Where the answers differ; [B, T] bool."""
    if harmful.ids.shape != harmless.ids.shape:
        raise ValueError(
            f"pairs of {tuple(harmful.ids.shape)} and {tuple(harmless.ids.shape)} do not line up"
        )
    differs = harmful.ids != harmless.ids
    if not differs.any():
        raise ValueError("harmful and harmless answers are the same")
    return differs


def _labels(batch: Batch, differs: Tensor) -> Tensor:
    return batch.ids.masked_fill(~(differs & batch.attention_mask), IGNORE)
