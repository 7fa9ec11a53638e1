"""Two tiny models of one shape that stand for an early checkpoint and a final model."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY, WIDTH, DEPTH = 40, 16, 4


def model(seed: int, kind: str = "llama", *, depth: int = DEPTH) -> PreTrainedModel:
    """A frozen random model in evaluation mode."""
    config = CONFIG_MAPPING[kind](
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=depth,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    made: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return made.eval().requires_grad_(False)


def batch(seed: int, rows: int = 4, length: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids [B, T] and mask [B, T] of uneven lengths."""
    gen = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (rows, length), generator=gen)
    lengths = torch.randint(3, length + 1, (rows, 1), generator=gen)
    mask = torch.arange(length)[None] < lengths
    return torch.where(mask, ids, 0), mask
