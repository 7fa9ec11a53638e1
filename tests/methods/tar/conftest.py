"""A tiny float64 Llama and batches with padding."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kit.methods.tar.batches import Counted
from kit.train.batches import MicroBatch
from kit.train.batching import Example, collate

torch.set_num_threads(1)
VOCABULARY = 29


def build_model(seed: int, *, layers: int = 3, width: int = 16) -> LlamaForCausalLM:
    """Weights larger than at initialisation, so that distributions are far from uniform.

    The norms are torch's: those of transformers compute in fp32 whatever the weights are.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=64,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config).eval()
    for block in model.model.layers:
        block.input_layernorm = torch.nn.RMSNorm(width, eps=1e-6)
        block.post_attention_layernorm = torch.nn.RMSNorm(width, eps=1e-6)
    model.model.norm = torch.nn.RMSNorm(width, eps=1e-6)
    model.to(torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.4)
    return model


def build_batch(seed: int, lengths=(7, 4, 9), prompt: int = 2):
    generator = torch.Generator().manual_seed(seed)
    return collate(
        [
            Example(
                id=f"e{i}",
                ids=tuple(torch.randint(1, VOCABULARY, (n,), generator=generator).tolist()),
                prompt_length=prompt,
            )
            for i, n in enumerate(lengths)
        ],
        pad_id=0,
    )


def count(batch):
    """The batch as a global batch of one micro-batch."""
    labels = int((batch.labels != -100).sum())
    weights = torch.full((len(batch.ids),), 1 / labels, dtype=torch.float64)
    return Counted(MicroBatch(batch, weights, 1.0), int(batch.attention_mask.sum()))


@pytest.fixture
def model():
    return build_model(0)


@pytest.fixture
def reference():
    return build_model(1)


@pytest.fixture
def forget():
    return build_batch(2)


@pytest.fixture
def retain():
    return build_batch(3, lengths=(5, 8, 6))


def rows_of(model, batch):
    """Each row by itself without padding: ids, hidden states and scores, written independently."""
    for i, row in enumerate(batch.ids):
        n = int(batch.attention_mask[i].sum())
        out = model(input_ids=row[None, :n], output_hidden_states=True, use_cache=False)
        yield row[:n].tolist(), batch.labels[i, :n].tolist(), out.hidden_states, out.logits[0]


def gradients(model, loss):
    """Gradients of a loss by name; zeros where it does not reach."""
    named = list(model.named_parameters())
    values = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True, retain_graph=True)
    return {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(named, values, strict=True)
    }


def assert_same_loss(model, ours, theirs, *, rtol=1e-10):
    """Value and every gradient of two losses agree in float64; to ``rtol`` where fp32 is used."""
    torch.testing.assert_close(ours.double(), theirs, rtol=rtol, atol=rtol / 100)
    mine, other = gradients(model, ours), gradients(model, theirs)
    largest = max(float(g.abs().max()) for g in other.values())
    assert largest > 0
    for name, gradient in other.items():
        torch.testing.assert_close(mine[name], gradient, rtol=100 * rtol, atol=rtol * largest)
