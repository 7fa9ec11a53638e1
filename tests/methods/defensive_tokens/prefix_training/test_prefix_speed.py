"""How long a miniature run takes; the bound is loose because test machines are shared."""

from __future__ import annotations

import time

import pytest
import torch

from kit.lm.generate import TransformersBackend
from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.prefix_training.state import start
from kit.methods.defensive_tokens.prefix_training.tuning import train_prefix
from tests.lm.tiny_world import tiny_llama
from tests.methods.defensive_tokens.prefix_training.prefix_cases import V, examples


def mini_sized():
    return tiny_llama(
        286,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_key_value_heads=4,
        tie_word_embeddings=True,
        initializer_range=0.05,
    )


def widened(pool):
    """The slots of ``examples`` moved behind the larger vocabulary."""
    from dataclasses import replace

    return [replace(e, ids=tuple(i + 286 - V if i >= V else i for i in e.ids)) for e in pool]


@pytest.mark.slow
def test_two_hundred_steps():
    """Measured 3.3 to 3.6 s (16 to 18 ms a step) on one 2.5 GHz core.

    Matrix products alone are 0.36 GFLOP a step, 2.5 ms; the rest is some 1,700 small operations.
    """
    pool = widened(examples(3200, 1))
    config = PrefixTraining(steps=200, micro_batch=16, accumulation=1)
    began = time.process_time()
    train_prefix(
        mini_sized(),
        start(torch.randn(3, 64)),
        lambda step: pool[step * 16 : (step + 1) * 16],
        config,
        pad_id=0,
    )
    assert time.process_time() - began < 12


@pytest.mark.slow
def test_one_evaluation():
    """Measured 0.40 to 0.50 s for 832 prompts and 6 tokens on one 2.5 GHz core."""
    prompts = [list(e.ids) for e in widened(examples(832, 2, shortest=6, longest=16))]
    backend = TransformersBackend(mini_sized(), 0)
    began = time.process_time()
    backend.generate(prompts, prefix=torch.randn(3, 64), max_new_tokens=6, stop_ids=[2])
    assert time.process_time() - began < 3
