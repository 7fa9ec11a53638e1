"""A random model small enough for brute force, and prompts around a suffix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedModel

from kit.lm.prefix import embed
from kit.methods.defensive_tokens.adaptive.prompts import OpenPrompt
from kit.methods.defensive_tokens.adaptive.suffix_loss import SuffixLoss
from kit.methods.defensive_tokens.samples import Sample

VOCABULARY, WIDTH, PAD = 11, 16, 0
ALLOWED = (1, 2, 3, 4, 5, 6)
AFTER = (7, 8)
TARGET = (9, 3)
NOBODY = Sample("none", "", "", "")


def model(seed: int = 0) -> PreTrainedModel:
    """A random model whose answers depend on what it reads, in float64 throughout.

    GPT-NeoX, because Llama's norms compute in float32 whatever the model's dtype is, which leaves
    too few digits for finite differences.
    """
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.6,
    )
    made = GPTNeoXForCausalLM(config).double().eval()
    made.requires_grad_(False)
    return made


def prefix(n: int = 3) -> Tensor:
    """Vectors longer than any embedding row, like trained ones."""
    return 3 * torch.randn(
        n, WIDTH, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )


def prompts(slots: int = 0, length: int = 3) -> list[OpenPrompt]:
    """Three prompts of different lengths, with slots in front where there is a prefix."""
    front = tuple(range(VOCABULARY, VOCABULARY + slots))
    bodies = ((10, 2), (10, 4, 4, 1, 6), (10, 5, 3))
    return [OpenPrompt(NOBODY, "", front + body, (1,) * length, AFTER) for body in bodies]


def objective(
    of: PreTrainedModel, given: Sequence[OpenPrompt], vectors: Tensor | None = None, **more: object
) -> SuffixLoss:
    """The loss of :data:`TARGET` behind these prompts."""
    return SuffixLoss(
        of,
        given,
        TARGET,
        prefix=vectors,
        pad_id=PAD,
        allowed=ALLOWED,
        **more,  # type: ignore[arg-type]
    )


def plain_loss(
    of: PreTrainedModel, prompt: OpenPrompt, suffix: Sequence[int], vectors: Tensor | None = None
) -> Tensor:
    """The same loss written down directly: a single whole prompt, no padding, no cache."""
    ids = torch.tensor([[*prompt.before, *suffix, *prompt.after, *TARGET]])
    scores = of(inputs_embeds=embed(of, ids, vectors)).logits[0]
    losses = torch.nn.functional.cross_entropy(
        scores[-len(TARGET) - 1 : -1], torch.tensor(TARGET), reduction="none"
    )
    return losses.mean()
