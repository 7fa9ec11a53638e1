"""Cross-entropy on label positions, its weights and its chunks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from kit.train.batching import IGNORE
from kit.train.losses import (
    MICRO_MEAN,
    TOKEN_MEAN,
    predicting_positions,
    token_weights,
    weighted_cross_entropy,
)


def test_a_label_is_predicted_from_the_position_left_of_it():
    labels = torch.tensor([[IGNORE, IGNORE, 5, 6], [IGNORE, 7, IGNORE, IGNORE]])
    rows, columns, targets = predicting_positions(labels)
    assert rows.tolist() == [0, 0, 1]
    assert columns.tolist() == [1, 2, 0]
    assert targets.tolist() == [5, 6, 7]


def test_a_label_in_the_first_column_cannot_be_predicted():
    rows, _, _ = predicting_positions(torch.tensor([[3, 4]]))
    assert len(rows) == 1


def states(tokens, seed=0):
    generator = torch.Generator().manual_seed(seed)
    head = torch.nn.Linear(8, 11, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.randn(11, 8, generator=generator))
    head.requires_grad_(False)
    hidden = torch.randn(tokens, 8, generator=generator, requires_grad=True)
    targets = torch.randint(11, (tokens,), generator=generator)
    return hidden, head, targets


def test_equal_weights_give_the_plain_mean():
    hidden, head, targets = states(10)
    weights = torch.full((10,), 0.1)
    expected = cross_entropy(head(hidden), targets)
    got = weighted_cross_entropy(hidden, head, targets, weights)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("chunk", [1, 3, 7, 10])
def test_chunks_change_neither_loss_nor_gradient(chunk):
    hidden, head, targets = states(10)
    weights = torch.rand(10, generator=torch.Generator().manual_seed(1))
    whole = weighted_cross_entropy(hidden, head, targets, weights)
    (whole_grad,) = torch.autograd.grad(whole, hidden)
    parts = weighted_cross_entropy(hidden, head, targets, weights, chunk=chunk)
    (parts_grad,) = torch.autograd.grad(parts, hidden)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(parts_grad, whole_grad)


def test_scores_are_upcast_before_the_softmax():
    hidden, head, targets = states(4)
    low, low_head = hidden.detach().to(torch.bfloat16), head.to(torch.bfloat16)
    got = weighted_cross_entropy(low, low_head, targets, torch.full((4,), 0.25))
    assert got.dtype is torch.float32
    torch.testing.assert_close(got, cross_entropy(low_head(low).float(), targets))


def test_the_published_normalisation_is_the_mean_of_micro_batch_means():
    counts, losses = [1, 3, 2, 6], [1.0, 2.0, 3.0, 4.0]  # one loss a token, constant per example
    weights = token_weights(counts, micro_batch=2, normalisation=MICRO_MEAN)
    total = sum(w * c * loss for w, c, loss in zip(weights, counts, losses, strict=True))
    means = [(1 * 1.0 + 3 * 2.0) / 4, (2 * 3.0 + 6 * 4.0) / 8]
    assert total == pytest.approx(sum(means) / 2)


@given(counts=st.lists(st.integers(1, 30), min_size=4, max_size=4))
def test_weights_of_all_tokens_sum_to_one(counts):
    for normalisation in (MICRO_MEAN, TOKEN_MEAN):
        weights = token_weights(counts, micro_batch=2, normalisation=normalisation)
        assert sum(w * c for w, c in zip(weights, counts, strict=True)) == pytest.approx(1.0)


def test_one_micro_batch_makes_the_normalisations_equal():
    counts = [3, 1, 4, 1]
    assert token_weights(counts, micro_batch=4) == pytest.approx(
        token_weights(counts, micro_batch=4, normalisation=TOKEN_MEAN)
    )


def test_examples_must_fill_micro_batches():
    with pytest.raises(ValueError, match="do not fill"):
        token_weights([1, 2, 3], micro_batch=2)


def test_unknown_normalisation_lists_the_known_ones():
    with pytest.raises(ValueError, match="micro-mean, token-mean"):
        token_weights([1], micro_batch=1, normalisation="sum")
