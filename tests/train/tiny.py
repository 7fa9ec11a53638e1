"""A tiny Llama and batches of tokens, for tests of training."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 40


def llama(seed=0, **settings):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        **settings,
    )
    return LlamaForCausalLM(config)


def tokens(step, rows=4, width=9):
    """[rows, width] int64, another for each step."""
    return torch.randint(
        0, VOCABULARY, (rows, width), generator=torch.Generator().manual_seed(1000 + step)
    )


def mean_loss(model, ids):
    """Cross-entropy of one batch, as transformers computes it."""
    return model(input_ids=ids, labels=ids).loss


def share_of(batch_rows):
    """The share of a micro-batch in the mean over ``batch_rows`` rows of equal length."""

    def loss(model, ids):
        return mean_loss(model, ids) * (len(ids) / batch_rows)

    return loss


def same(left, right):
    """Whether two models hold the same bits."""
    pairs = zip(left.state_dict().items(), right.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for (_, a), b in pairs)
