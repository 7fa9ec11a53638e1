"""A training that stops and goes on gives the bits of one that did not stop."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from kit.train.checkpoints import CheckpointFolder
from kit.train.engine import Precision, Progress
from kit.train.optimizers import SGD, Adadelta, AdamW, Muon, ScheduleFreeAdamW
from kit.train.randomness import kept_random_state, random_state, set_random_state
from kit.train.single_process import SingleProcess
from tests.train.tiny import llama, mean_loss, same, tokens

SPECS = [
    AdamW(0.01, 0.01),
    SGD(0.1, 0.0),
    Adadelta(1.0, 0.0),
    ScheduleFreeAdamW(0.02, 0.0, warmup_steps=3),
    Muon(0.02, 0.01),
]


def engine_of(spec, seed=0, precision=None):
    return SingleProcess(llama(seed, attention_dropout=0.3), spec, precision)


def train(engine, start, stop):
    for step in range(start, stop):
        engine.accumulate(mean_loss, [tokens(step)])
        engine.step(0.01 / (1 + step))


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, spec):
    """With dropout, so that the generators matter."""
    whole = engine_of(spec)
    torch.manual_seed(5)
    train(whole, 0, 6)
    first = engine_of(spec)
    torch.manual_seed(5)
    train(first, 0, 3)
    first.save(CheckpointFolder(tmp_path), Progress(3, {"retain": 12}, {"loss": [3.5, 0.1, 1e-9]}))
    resumed = engine_of(spec, seed=9)
    progress = resumed.resume(CheckpointFolder(tmp_path))
    assert progress == Progress(3, {"retain": 12}, {"loss": [3.5, 0.1, 1e-9]})
    train(resumed, 3, 6)
    assert same(resumed.model, whole.model)
    expected = whole.optimizer.tensors()
    assert all(torch.equal(t, expected[n]) for n, t in resumed.optimizer.tensors().items())
    assert expected


def test_damage_falls_back_to_the_checkpoint_before(tmp_path):
    engine = engine_of(AdamW(0.01, 0.0))
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2, 3):
        train(engine, step - 1, step)
        engine.save(folder, Progress(step))
    assert folder.steps() == [2, 3]
    path = folder.path(3)
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    again = CheckpointFolder(tmp_path)
    resumed = engine_of(AdamW(0.01, 0.0), seed=3)
    assert resumed.resume(again).step == 2
    assert again.damaged == ["state-3.safetensors"]
    assert not path.exists()
    train(resumed, 2, 3)
    assert same(resumed.model, engine.model)


def test_changed_values_are_damage_too(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.write(4, {"a": torch.arange(3)}, {"positions": {"retain": 17}})
    path = folder.path(4)
    path.write_bytes(path.read_bytes().replace(b"17", b"18"))
    assert folder.newest() is None
    folder.path(7).write_bytes(b"half a file")
    assert folder.newest() is None
    assert folder.damaged == ["state-4.safetensors", "state-7.safetensors"]


def test_a_file_under_another_step_is_not_trusted(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.write(1, {"a": torch.zeros(2)})
    folder.path(1).rename(folder.path(5))
    assert folder.newest() is None


def test_every_type_goes_through(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=None)
    tensors = {
        "half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        "count": torch.tensor(3),
        "none": torch.zeros(0, 4),
        "turned": torch.arange(6.0).reshape(2, 3).T,
    }
    folder.write(0, tensors, {"curve": [1.0, float("inf")]})
    read = folder.read(0)
    assert read.values == {"curve": [1.0, float("inf")]}
    assert set(read.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert read.tensors[name].dtype == tensor.dtype
        torch.testing.assert_close(read.tensors[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_no_checkpoint_is_a_start(tmp_path):
    engine = engine_of(AdamW(0.01, 0.0))
    assert engine.resume(CheckpointFolder(tmp_path)) is None
    assert same(engine.model, llama(attention_dropout=0.3))


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    engine = engine_of(AdamW(0.01, 0.0))
    train(engine, 0, 1)
    engine.save(CheckpointFolder(tmp_path), Progress(1))
    with pytest.raises(ValueError, match="does not fit"):
        engine_of(SGD(0.01, 0.0)).resume(CheckpointFolder(tmp_path))
    bf16 = engine_of(AdamW(0.01, 0.0), precision=Precision(masters="bfloat16"))
    with pytest.raises(ValueError, match="another model or precision"):
        bf16.resume(CheckpointFolder(tmp_path))
    with pytest.raises(ValueError, match="nothing to resume"):
        CheckpointFolder(tmp_path, keep=0)


def test_nothing_is_saved_in_the_middle_of_an_outer_step(tmp_path):
    engine = engine_of(AdamW(0.01, 0.0))
    folder = CheckpointFolder(tmp_path)
    with (
        engine.inner(SGD(0.1, 0.0)),
        pytest.raises(ValueError, match="between two outer steps"),
    ):
        engine.save(folder, Progress(1))
    engine.accumulate(mean_loss, [tokens(0)])
    engine.collect("tr")
    with pytest.raises(ValueError, match="between two outer steps"):
        engine.save(folder, Progress(1))
    assert folder.steps() == []


def draws():
    return random.random(), float(np.random.normal()), float(torch.rand(()))


def test_generators_go_on_where_they_were():
    np.random.normal()  # Leaves the second value of its pair behind.
    state = random_state()
    expected = [draws(), draws()]
    set_random_state(state)
    with kept_random_state():
        draws()
    assert [draws(), draws()] == expected
