"""Losses on the next-token distribution against a second evaluation, row by row in float64."""

from __future__ import annotations

import math

import pytest
import torch

from kit.methods.tar.forward import forward
from kit.methods.tar.losses import (
    cross_entropy,
    inverse_cross_entropy,
    negative_cross_entropy,
    negative_entropy,
)
from kit.methods.tar.scores import at_least_fp32, entropies, per_position
from tests.methods.tar.conftest import VOCABULARY, assert_same_loss, build_batch, rows_of


def loss_of(model, batch, kind, **kwargs):
    out = forward(model, batch)
    labels = batch.attention_mask if kind is negative_entropy else batch.labels
    return kind(out.states, out.head, labels, **kwargs)


def entropy_by_hand(scores):
    p = torch.softmax(scores, -1)
    return -(p * torch.log(p)).sum(-1)


def label_probabilities(model, batch):
    """p(label) wherever a label stands."""
    return torch.stack(
        [
            torch.softmax(scores[t - 1], -1)[label]
            for _, labels, _, scores in rows_of(model, batch)
            for t, label in enumerate(labels)
            if label != -100
        ]
    )


def test_masked_entropy_is_the_mean_over_real_tokens(model, forget):
    ours = loss_of(model, forget, negative_entropy, padding="masked")
    parts = [entropy_by_hand(scores) for *_, scores in rows_of(model, forget)]
    assert_same_loss(model, ours, -torch.cat(parts).mean())


def test_entropy_with_padding_is_the_mean_over_all_positions(model, forget):
    ours = loss_of(model, forget, negative_entropy, padding="included")
    scores = model(input_ids=forget.ids, attention_mask=forget.attention_mask).logits
    assert_same_loss(model, ours, -entropy_by_hand(scores).mean())
    masked = loss_of(model, forget, negative_entropy, padding="masked")
    assert (ours - masked).abs().item() > 1e-3


def test_uniform_scores_reach_the_maximum(model, forget):
    with torch.no_grad():
        model.lm_head.weight.zero_()
    ours = loss_of(model, forget, negative_entropy)
    assert ours.item() == pytest.approx(-math.log(VOCABULARY))


@pytest.mark.parametrize("kind", [negative_entropy, cross_entropy, inverse_cross_entropy])
@pytest.mark.parametrize("chunk", [1, 5, 26, 1000])
def test_chunked_equals_unchunked(model, forget, kind, chunk):
    assert_same_loss(
        model, loss_of(model, forget, kind, chunk=chunk), loss_of(model, forget, kind, chunk=10**6)
    )


def test_chunks_are_really_cut():
    seen = []

    def part(piece):
        seen.append(len(piece))
        return piece[:, 0]

    values = torch.arange(14.0).reshape(7, 2)
    torch.testing.assert_close(per_position(part, [values], chunk=3), values[:, 0])
    assert seen == [3, 3, 1]


@pytest.mark.parametrize(
    ("kind", "kwargs"),
    [
        (negative_entropy, {"padding": "masked"}),
        (cross_entropy, {}),
        (negative_cross_entropy, {}),
        (inverse_cross_entropy, {}),
    ],
)
def test_padding_does_not_change_the_masked_losses(model, forget, kind, kwargs):
    wider = build_batch(2, lengths=(7, 4, 9, 20))
    three = type(wider)(
        ids=wider.ids[:3],
        labels=wider.labels[:3],
        attention_mask=wider.attention_mask[:3],
        position_ids=wider.position_ids[:3],
        item_ids=wider.item_ids[:3],
    )
    assert three.ids.shape != forget.ids.shape
    ours = loss_of(model, three, kind, **kwargs)
    assert_same_loss(model, ours, loss_of(model, forget, kind, **kwargs))


def test_cross_entropy_and_its_negative(model, forget):
    by_hand = -label_probabilities(model, forget).log().mean()
    assert_same_loss(model, loss_of(model, forget, cross_entropy), by_hand)
    assert_same_loss(
        model,
        loss_of(model, forget, negative_cross_entropy),
        label_probabilities(model, forget).log().mean(),
    )


def test_the_clamp_stops_value_and_gradient_of_single_tokens(model, forget):
    log_p = label_probabilities(model, forget).log()
    highest = -log_p.median().item() + 1e-6
    kept = torch.where(log_p > -highest, log_p, torch.full_like(log_p, -highest))
    assert 0 < int((log_p <= -highest).sum()) < len(log_p)
    ours = loss_of(model, forget, negative_cross_entropy, highest=highest)
    assert_same_loss(model, ours, kept.mean())
    loss_of(model, forget, negative_cross_entropy, highest=0.0).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_inverse_cross_entropy(model, forget):
    by_hand = -torch.log1p(-label_probabilities(model, forget)).mean()
    assert_same_loss(model, loss_of(model, forget, inverse_cross_entropy), by_hand)


def test_labels_below_the_threshold_add_nothing_and_count(model, forget):
    p = label_probabilities(model, forget)
    threshold = float(p.detach().log().median()) + 1e-9
    kept = torch.where(p.log() >= threshold, torch.log1p(-p), torch.zeros_like(p))
    assert 0 < int((kept != 0).sum()) < len(p)
    ours = loss_of(model, forget, inverse_cross_entropy, lowest_log_prob=threshold)
    assert_same_loss(model, ours, -kept.mean())


def test_inverse_cross_entropy_where_the_label_is_certain():
    """p rounds to 1 in fp32; log(1 - p) by subtraction would be minus infinity."""
    scores = torch.tensor([[[40.0, 0.0, -1.0], [0.0, 0.0, 0.0]]], requires_grad=True)
    labels = torch.tensor([[-100, 0]])
    loss = inverse_cross_entropy(scores, lambda x: x, labels)
    loss.backward()
    assert loss.item() == pytest.approx(40 - math.log(1 + math.exp(-1)), rel=1e-6)
    assert torch.isfinite(scores.grad).all()
    assert float(scores.grad[0, 0, 0]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "loss",
    [
        lambda s, h: negative_entropy(s, h, torch.ones(2, 3, dtype=torch.bool)),
        lambda s, h: cross_entropy(s, h, torch.tensor([[-100, 3, 1], [-100, -100, 4]])),
        lambda s, h: inverse_cross_entropy(s, h, torch.tensor([[-100, 3, 1], [-100, -100, 4]])),
    ],
)
def test_gradients_are_those_of_finite_differences(loss):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(6, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s, w: loss(s, lambda x: x @ w.T), (states, weight))


def test_bf16_scores_are_computed_in_fp32():
    assert at_least_fp32(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    states = torch.randn(5, 8, dtype=torch.bfloat16)
    weight = torch.randn(11, 8, dtype=torch.bfloat16)
    ours = entropies(states, lambda x: x @ weight.T)
    torch.testing.assert_close(ours, entropy_by_hand((states @ weight.T).float()))


def test_bad_input_is_refused(model, forget):
    out = forward(model, forget)
    with pytest.raises(ValueError, match="unknown padding 'off'"):
        negative_entropy(out.states, out.head, forget.attention_mask, padding="off")
    with pytest.raises(ValueError, match="a mask of"):
        negative_entropy(out.states, out.head, forget.attention_mask[:, 1:])
    with pytest.raises(ValueError, match="nothing to predict"):
        cross_entropy(out.states, out.head, torch.full_like(forget.labels, -100))
    with pytest.raises(ValueError, match="labels of"):
        cross_entropy(out.states, out.head, forget.labels[:, 1:])
    with pytest.raises(ValueError, match="no positions"):
        entropies(out.states[0, :0], out.head)
    with pytest.raises(ValueError, match="chunk of 0"):
        entropies(out.states[0], out.head, chunk=0)
