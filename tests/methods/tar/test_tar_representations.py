"""Representation losses against a second evaluation; which states they see."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kit.methods.tar.forward import forward
from kit.methods.tar.objectives import check_reference, retain_loss
from kit.methods.tar.presets import preset
from kit.methods.tar.representations import (
    hashed_vectors,
    random_mapping_loss,
    representation_distance,
)
from tests.methods.tar.conftest import assert_same_loss, build_model, count, rows_of


def settings(**changes):
    return preset("released-code", "bio", **changes)


@pytest.mark.parametrize("distance", ["norm", "squared-norm"])
def test_retain_loss_by_hand(model, reference, retain, distance):
    chosen = settings(distance=distance, representation_padding="masked")
    loss = retain_loss(model, reference, count(retain), chosen)
    with torch.no_grad():
        originals = [states for _, _, states, _ in rows_of(reference, retain)]
    sums = torch.zeros(4, dtype=torch.float64)
    tokens, nats, labels_seen = 0, 0.0, 0
    for (_, labels, states, scores), original in zip(
        rows_of(model, retain), originals, strict=True
    ):
        for layer, (h, g) in enumerate(zip(states, original, strict=True)):
            squares = ((h[0] - g[0]) ** 2).sum(-1)
            values = squares if distance == "squared-norm" else squares.sqrt()
            sums = sums.index_add(0, torch.tensor([layer]), values.sum()[None])
        tokens += len(labels)
        for t, label in enumerate(labels):
            if label != -100:
                nats = nats - torch.log_softmax(scores[t - 1], -1)[label]
                labels_seen += 1
    assert_same_loss(model, loss, nats / labels_seen + (sums / tokens).mean())
    doubled = replace(chosen, representation_scale=2.0)
    loss = retain_loss(model, reference, count(retain), doubled)
    assert_same_loss(model, loss, nats / labels_seen + 2 * (sums / tokens).mean())


def test_block_outputs_differ_from_hidden_states_as_documented(model, retain):
    hidden = forward(model, retain, layers="hidden-states").layers
    blocks = forward(model, retain, layers="block-outputs").layers
    assert len(hidden) == 4
    assert len(blocks) == 3
    for ours, theirs in zip(blocks[:-1], hidden[1:-1], strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(model.model.norm(blocks[-1]), hidden[-1])
    assert not torch.allclose(blocks[-1], hidden[-1])
    assert torch.equal(hidden[0], model.model.embed_tokens(retain.ids))


def test_no_hook_is_left(model, retain):
    hooks = model.model.layers[-1]._forward_hooks
    forward(model, retain, layers="hidden-states")  # transformers installs its own, once
    before = dict(hooks)
    forward(model, retain, layers="block-outputs")
    assert dict(hooks) == before


@pytest.mark.parametrize("distance", ["norm", "squared-norm"])
def test_equal_models_have_no_distance_and_a_finite_gradient(model, retain, distance):
    states = forward(model, retain, layers="hidden-states").layers
    same = forward(build_model(0), retain, layers="hidden-states").layers
    loss = representation_distance(states, same, retain.attention_mask, distance=distance)
    assert loss.item() == 0
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads
    assert all(not g.any() for g in grads)


def test_the_reference_gets_no_gradient(model, reference, retain):
    retain_loss(model, reference, count(retain), settings()).backward()
    assert all(p.grad is None for p in reference.parameters())
    assert model.model.embed_tokens.weight.grad.any()


def test_padding_changes_the_loss_only_where_it_is_included(model, reference, retain):
    one = [t[:1] for t in (retain.ids, retain.labels, retain.attention_mask, retain.position_ids)]
    padded = type(retain)(*one, item_ids=retain.item_ids[:1])
    width = int(padded.attention_mask.sum())
    bare = type(retain)(*(t[:, :width] for t in one), item_ids=retain.item_ids[:1])
    assert width < padded.ids.shape[1]
    for padding, same in (("masked", True), ("included", False)):
        values = [
            retain_loss(model, reference, count(batch), settings(representation_padding=padding))
            for batch in (padded, bare)
        ]
        close = torch.isclose(values[0], values[1], rtol=1e-9)
        assert bool(close) is same


def test_a_reference_of_another_shape_is_refused(model, retain):
    for other in (build_model(1, layers=2), build_model(1, width=8)):
        with pytest.raises(ValueError, match="reference model has another shape"):
            retain_loss(model, other, count(retain), settings())
        with pytest.raises(ValueError, match="reference model has another shape"):
            check_reference(model, other)


def test_random_mapping_by_hand(model, forget):
    vectors = hashed_vectors(29, 16, seed=4)
    states = forward(model, forget, layers="hidden-states").layers
    mask = forget.attention_mask
    ours = random_mapping_loss(states, forget.ids, vectors, mask, padding="masked")
    sums, tokens = torch.zeros(4, dtype=torch.float64), 0
    for ids, _, hidden, _ in rows_of(model, forget):
        for layer, h in enumerate(hidden):
            for t, token in enumerate(ids):
                v = vectors[token].double()
                cosine = (h[0, t] @ v) / (h[0, t].norm() * v.norm())
                sums = sums.index_add(0, torch.tensor([layer]), (1 - cosine.abs())[None])
        tokens += len(ids)
    assert_same_loss(model, ours, (sums / tokens).mean())
    included = random_mapping_loss(states, forget.ids, vectors, mask)
    assert (included - ours).abs().item() > 1e-4


def test_random_mapping_counts_opposite_directions_as_mapped():
    vectors = hashed_vectors(3, 8, seed=0)
    ids = torch.tensor([[0, 1, 2]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    for sign in (2.0, -0.5):
        loss = random_mapping_loss([sign * vectors[ids]], ids, vectors, mask)
        assert loss.item() == pytest.approx(0, abs=1e-6)


def test_hashed_vectors_belong_to_seed_and_token():
    torch.manual_seed(0)
    first = hashed_vectors(50, 6, seed=1)
    torch.manual_seed(99)
    assert torch.equal(first, hashed_vectors(50, 6, seed=1))
    assert not torch.equal(first, hashed_vectors(50, 6, seed=2))
    assert len({tuple(row) for row in first.tolist()}) == 50


def test_bad_names_are_refused(model, forget):
    with pytest.raises(ValueError, match="unknown layers 'all'"):
        forward(model, forget, layers="all")
    with pytest.raises(ValueError, match="unknown distance 'cosine'"):
        representation_distance([], [], forget.attention_mask, distance="cosine")
    with pytest.raises(ValueError, match="at least one layer"):
        random_mapping_loss([], forget.ids, hashed_vectors(29, 16, 0), forget.attention_mask)
