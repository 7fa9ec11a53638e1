"""Layouts and the embedding of prefix slots."""

from __future__ import annotations

import pytest
import torch

from kit.lm.padding import positions
from kit.lm.prefix import embed, slot_ids
from tests.lm.tiny_world import tiny_llama

V = 64


def test_slots_are_the_published_ids_for_llama3():
    assert slot_ids(128256, 5) == [128256, 128257, 128258, 128259, 128260]


def test_embed_puts_row_i_at_slot_i_wherever_it_stands():
    model = tiny_llama(V)
    prefix = torch.randn(2, 32)
    ids = torch.tensor([[1, V + 1, 7, V], [V, 3, 3, 3]])
    got = embed(model, ids, prefix)
    table = model.get_input_embeddings().weight
    assert torch.equal(got[0], torch.stack([table[1], prefix[1], table[7], prefix[0]]))
    assert torch.equal(got[1], torch.stack([prefix[0], table[3], table[3], table[3]]))


def test_embed_equals_an_enlarged_embedding_table():
    """The published route writes the vectors into new rows of the table; ours must agree."""
    model, prefix = tiny_llama(V), torch.randn(5, 32)
    ids = torch.tensor([[*slot_ids(V, 5), 1, 9, 12]])
    enlarged = torch.cat([model.get_input_embeddings().weight, prefix])
    assert torch.equal(embed(model, ids, prefix), enlarged[ids])


def test_gradient_reaches_the_prefix_rows_and_nothing_else():
    model = tiny_llama(V)
    prefix = torch.randn(3, 32, requires_grad=True)
    ids = torch.tensor([[V, V + 1, 1, 4], [V, V + 1, 1, 5]])
    embed(model, ids, prefix).sum().backward()
    assert prefix.grad is not None
    # Row 2 is in no prompt; rows 0 and 1 are in both.
    assert torch.equal(prefix.grad, torch.tensor([[2.0] * 32, [2.0] * 32, [0.0] * 32]))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_embed_casts_to_the_model_dtype_and_back_in_the_gradient():
    model = tiny_llama(V).to(torch.bfloat16)
    prefix = torch.randn(1, 32, requires_grad=True)
    embeds = embed(model, torch.tensor([[V, 1]]), prefix)
    assert embeds.dtype is torch.bfloat16
    embeds.float().pow(2).sum().backward()
    assert prefix.grad is not None
    assert prefix.grad.dtype is torch.float32


def test_slots_without_vectors_are_an_error():
    model = tiny_llama(V)
    with pytest.raises(ValueError, match="no prefix was given"):
        embed(model, torch.tensor([[V, 1]]), None)
    with pytest.raises(ValueError, match="only 1 vectors"):
        embed(model, torch.tensor([[V + 1, 1]]), torch.zeros(1, 32))
    with pytest.raises(ValueError, match="width 32"):
        embed(model, torch.tensor([[V, 1]]), torch.zeros(1, 31))
    with pytest.raises(ValueError, match="width 32"):
        embed(model, torch.tensor([[V, 1]]), torch.zeros(32))


def test_no_prefix_and_no_slots_is_the_plain_embedding():
    model, ids = tiny_llama(V), torch.tensor([[1, 2, 3]])
    assert torch.equal(embed(model, ids, None), model.get_input_embeddings()(ids))


def test_positions_count_from_the_first_real_token():
    mask = torch.tensor([[False, False, True, True], [True, True, True, True]])
    assert positions(mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]
