"""An example without room for a label has a place in its micro-batch and no part in the loss."""

from __future__ import annotations

import pytest
import torch

from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.prefix_training.loss import accumulate
from kit.train.batching import Example
from kit.train.losses import TOKEN_MEAN, token_weights
from tests.lm.tiny_world import tiny_llama
from tests.methods.defensive_tokens.prefix_training.prefix_cases import V, examples, initial

WAYS = {
    "padded": {},
    "packed": {"forward": "packed"},
    "packed, little memory": {"forward": "packed", "low_memory": True},
}


def masked(example):
    return Example(f"{example.id}/masked", example.ids, len(example.ids))


def step(pool, micro_batch, **how):
    """Loss of one step and its gradient in the prefix."""
    prefix = torch.nn.Parameter(initial())
    config = PrefixTraining(
        steps=1, micro_batch=micro_batch, accumulation=len(pool) // micro_batch, **how
    )
    loss = accumulate(tiny_llama(V), prefix, pool, config, pad_id=0)
    gradient = torch.zeros_like(prefix) if prefix.grad is None else prefix.grad
    return loss, gradient


@pytest.mark.parametrize("rows", [1, 3, 16])
@pytest.mark.parametrize("way", WAYS)
def test_the_rest_of_its_micro_batch_shares_the_mean(way, rows):
    first, second, third, fourth = examples(4)
    loss, gradient = step([first, masked(second), third, fourth], 4, forward_rows=rows, **WAYS[way])
    wanted, wanted_gradient = step([first, third, fourth], 3)
    assert loss == pytest.approx(wanted, rel=1e-5)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("way", WAYS)
def test_a_micro_batch_of_nothing_else_adds_nothing(way):
    pool = examples(4)
    loss, gradient = step([*pool[:2], masked(pool[2]), masked(pool[3])], 2, **WAYS[way])
    wanted, wanted_gradient = step(pool[:2], 2)
    assert loss == pytest.approx(wanted / 2, rel=1e-5)
    torch.testing.assert_close(gradient, wanted_gradient / 2, rtol=1e-5, atol=1e-7)


def test_weights_of_nothing_are_zero():
    assert token_weights([0, 0, 4, 0], micro_batch=2) == [0.0, 0.0, 1 / 8, 1 / 8]
    assert token_weights([0, 0], micro_batch=1, normalisation=TOKEN_MEAN) == [1.0, 1.0]


@pytest.mark.parametrize("way", WAYS)
def test_a_step_of_nothing_else_moves_nothing(way):
    loss, gradient = step([masked(one) for one in examples(2)], 2, **WAYS[way])
    assert loss == 0
    assert not gradient.any()
