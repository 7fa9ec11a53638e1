"""How long a miniature training and evaluation of a prefix take, in this process.

Run by ``make bench``. Nothing is asserted about seconds.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from transformers import PreTrainedModel

from kit.lm.generate import TransformersBackend
from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.prefix_training.state import start
from kit.methods.defensive_tokens.prefix_training.tuning import train_prefix
from kit.train.batching import Example
from tests.lm.tiny_world import tiny_llama
from tests.methods.defensive_tokens.prefix_training.prefix_cases import V, examples

WORDS = 286


def mini_sized() -> PreTrainedModel:
    """A model of the shape of the shipped miniature ones."""
    made: PreTrainedModel = tiny_llama(
        WORDS,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_key_value_heads=4,
        tie_word_embeddings=True,
        initializer_range=0.05,
    )
    return made


def widened(pool: list[Example]) -> list[Example]:
    """The slots of ``examples`` moved behind the larger vocabulary."""
    return [replace(e, ids=tuple(i + WORDS - V if i >= V else i for i in e.ids)) for e in pool]


def test_two_hundred_steps(benchmark: BenchmarkFixture) -> None:
    """Matrix products alone are 0.36 GFLOP a step; the rest is some 1,700 small operations."""
    pool = widened(examples(3200, 1))
    config = PrefixTraining(steps=200, micro_batch=16, accumulation=1)

    def train() -> None:
        def batch(step: int) -> list[Example]:
            return pool[step * 16 : (step + 1) * 16]

        train_prefix(mini_sized(), start(torch.randn(3, 64)), batch, config, pad_id=0)

    benchmark.pedantic(train, rounds=3, warmup_rounds=1)


def test_one_evaluation(benchmark: BenchmarkFixture) -> None:
    """832 prompts, six tokens each."""
    prompts = [list(e.ids) for e in widened(examples(832, 2, shortest=6, longest=16))]
    backend = TransformersBackend(mini_sized(), 0)
    settings = {"prefix": torch.randn(3, 64), "max_new_tokens": 6, "stop_ids": [2]}
    benchmark.pedantic(backend.generate, (prompts,), settings, rounds=3, warmup_rounds=1)
