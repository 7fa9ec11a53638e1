"""Tied embeddings: what a prefix would do in the table, and that it does not do it outside."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from kit.lm.generate import TransformersBackend
from kit.lm.model import embedding_matrix, is_tied, output_matrix
from kit.methods.defensive_tokens.output_rows import as_output_rows
from kit.methods.defensive_tokens.procrustes import orthogonal_map

V, WIDTH, SLOTS = 40, 16, 3
PROMPTS = [[V, V + 1, V + 2, 5, 9, 11], [V, V + 1, V + 2, 7], [V, V + 1, V + 2, 20, 3, 8, 31, 2]]
PAD = 1


def tiny_qwen2(*, tied: bool = True, seed: int = 0) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=V, hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied,
        initializer_range=0.3,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    return model.requires_grad_(False)


def prefix(norm: float) -> torch.Tensor:
    rows = torch.randn(SLOTS, WIDTH, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.normalize(rows, dim=1) * norm


def installed(model: Qwen2ForCausalLM, vectors: torch.Tensor) -> Qwen2ForCausalLM:
    """As the authors' setup.py does it: the table grows, and the vectors are its new rows."""
    grown = copy.deepcopy(model)
    grown.resize_token_embeddings(V + SLOTS, mean_resizing=False)
    embedding_matrix(grown)[V:] = vectors
    assert is_tied(grown) == is_tied(model)
    return grown


@pytest.mark.parametrize("norm", [1.0, 30.0])
def test_the_measure_is_what_the_grown_table_does(norm: float) -> None:
    """Differential: transformers' own resized model, one prompt at a time, no padding."""
    model, vectors = tiny_qwen2(), prefix(norm)
    wins, shares = as_output_rows(model, PROMPTS, vectors, pad_id=PAD)
    grown = installed(model, vectors)
    for prompt, win, share in zip(PROMPTS, wins, shares, strict=True):
        scores = grown(input_ids=torch.tensor([prompt])).logits[0, -1]
        assert win == (int(scores.argmax()) >= V)
        assert share == pytest.approx(float(scores.softmax(0)[V:].sum()), abs=1e-6)


def test_a_long_vector_takes_over_in_the_table_and_never_outside_of_it() -> None:
    """Of both signs, so that one of them has a large score whatever the states are."""
    model = tiny_qwen2()
    vectors = prefix(60.0)[:1].repeat(SLOTS, 1) * torch.tensor([[1.0], [-1.0], [1.0]])
    wins, shares = as_output_rows(model, PROMPTS, vectors, pad_id=PAD)
    assert all(wins)
    assert min(shares) > 0.9
    made = TransformersBackend(model, PAD).generate(
        PROMPTS, max_new_tokens=4, stop_ids=[0], prefix=vectors
    )
    ids = [token for one in made for token in one.ids]
    assert ids
    assert max(ids) < V


def test_the_prefix_leaves_the_tied_matrix_alone() -> None:
    model = tiny_qwen2()
    before = embedding_matrix(model).clone()
    TransformersBackend(model, PAD).generate(
        PROMPTS, max_new_tokens=2, stop_ids=[0], prefix=prefix(60.0)
    )
    assert torch.equal(output_matrix(model), before)
    assert is_tied(model)


def test_two_matrices_are_refused() -> None:
    with pytest.raises(ValueError, match="two matrices"):
        as_output_rows(tiny_qwen2(tied=False), PROMPTS, prefix(1.0), pad_id=PAD)


@pytest.mark.parametrize("tied", [True, False])
def test_the_map_of_input_rows_is_that_of_output_rows_where_they_are_tied(tied: bool) -> None:
    older, newer = (tiny_qwen2(tied=tied, seed=seed) for seed in (1, 2))
    inputs = orthogonal_map(embedding_matrix(older), embedding_matrix(newer))
    outputs = orthogonal_map(output_matrix(older), output_matrix(newer))
    same = torch.allclose(inputs.matrix, outputs.matrix, atol=1e-9)
    assert same == tied
    moved = output_matrix(older).double() @ inputs.matrix
    residual = float((moved - output_matrix(newer).double()).norm())
    assert (residual == pytest.approx(inputs.residual, rel=1e-9)) == tied
