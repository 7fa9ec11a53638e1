"""The loss of a prefix on examples that train nothing."""

from __future__ import annotations

import weakref

import pytest
import torch

from kit.methods.defensive_tokens.prefix_training import loss as prefix_loss
from kit.methods.defensive_tokens.prefix_training import packed
from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.prefix_training.loss import mean_loss
from tests.lm.tiny_world import tiny_llama
from tests.methods.defensive_tokens.prefix_training.prefix_cases import (
    N,
    V,
    examples,
    fingerprint,
    initial,
)

WAYS = {
    "padded": {},
    "packed": {"forward": "packed"},
    "packed, little memory": {"forward": "packed", "low_memory": True},
}


def by_hand(model, prefix, pool):
    """Cross-entropy over all label tokens, one forward pass an example."""
    losses = []
    for example in pool:
        rows = torch.cat([prefix, model.model.embed_tokens(torch.tensor(example.ids[N:]))])
        scores = model(inputs_embeds=rows[None], use_cache=False).logits[0]
        answer = torch.tensor(example.ids[example.prompt_length :])
        predicting = scores[example.prompt_length - 1 : -1]
        losses.append(torch.nn.functional.cross_entropy(predicting, answer, reduction="none"))
    return float(torch.cat(losses).mean())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [1, 7, 20])
def test_it_is_the_mean_over_label_tokens_whatever_is_computed_together(way, count):
    model, pool = tiny_llama(V), examples(count)
    config = PrefixTraining(steps=1, micro_batch=4, forward_rows=3, **WAYS[way])
    found = mean_loss(model, initial(), pool, config, pad_id=0)
    assert found == pytest.approx(by_hand(model, initial(), pool), rel=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_it_trains_nothing(way):
    model, prefix = tiny_llama(V), initial()
    before = fingerprint(model)
    config = PrefixTraining(steps=1, **WAYS[way])
    first = mean_loss(model, prefix, examples(5), config, pad_id=0)
    assert mean_loss(model, prefix, examples(5), config, pad_id=0) == first
    assert torch.equal(prefix, initial())
    assert prefix.grad is None
    assert not prefix.requires_grad
    assert fingerprint(model) == before
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("way", WAYS)
def test_one_graph_at_a_time(way, monkeypatch):
    """At full size a graph is 50 GB: the one before is gone when the next is made."""
    alive = []

    def watched(make):
        def made(*arguments, **options):
            assert not [one for one in alive if one() is not None]
            loss = make(*arguments, **options)
            alive.append(weakref.ref(loss))
            return loss

        return made

    monkeypatch.setattr(prefix_loss, "batch_loss", watched(prefix_loss.batch_loss))
    monkeypatch.setattr(packed, "packed_loss", watched(packed.packed_loss))
    config = PrefixTraining(steps=1, forward_rows=2, **WAYS[way])
    mean_loss(tiny_llama(V), initial(), examples(6), config, pad_id=0)
    assert len(alive) == 3
