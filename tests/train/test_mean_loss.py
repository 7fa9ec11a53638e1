"""The loss of a prefix on examples that train nothing."""

from __future__ import annotations

import pytest
import torch
from prefix_cases import N, V, examples, fingerprint, initial
from tiny_world import tiny_llama

from kit.train.prefix_config import PrefixTraining
from kit.train.prefix_loss import mean_loss

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
