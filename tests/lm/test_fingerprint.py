"""One changed bit anywhere changes the fingerprint."""

from __future__ import annotations

import pytest
import torch

from kit.lm.fingerprint import fingerprint
from tests.lm.tiny_world import tiny_llama

SMALL = "model.layers.1.input_layernorm.weight"
LARGE = "model.embed_tokens.weight"
ROWS = 10_000  # x 32 x 4 bytes: above the size from which tensors are summed on their device


@pytest.fixture(scope="module")
def large():
    return tiny_llama(ROWS)


def flip(model, name, byte, bit):
    """Flip one bit of a parameter in place; flipping again restores it."""
    raw = model.get_parameter(name).detach().view(torch.uint8).reshape(-1)
    raw[byte] = raw[byte] ^ (1 << bit)


def test_equal_weights_have_equal_fingerprints(large):
    assert fingerprint(large) == fingerprint(tiny_llama(ROWS))
    assert fingerprint(tiny_llama(seed=0)) != fingerprint(tiny_llama(seed=1))
    assert len(fingerprint(large)) == 64


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("byte", [0, 3, 64, 127])
def test_one_bit_of_a_small_tensor(byte, bit):
    model = tiny_llama()
    before = fingerprint(model)
    flip(model, SMALL, byte, bit)
    assert fingerprint(model) != before
    flip(model, SMALL, byte, bit)
    assert fingerprint(model) == before


@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("byte", [0, 3, 65521 * 4, ROWS * 32 * 4 - 1])
def test_one_bit_of_a_large_tensor(large, byte, bit):
    assert large.get_parameter(LARGE).numel() * 4 > 1 << 20
    before = fingerprint(large)
    flip(large, LARGE, byte, bit)
    assert fingerprint(large) != before
    flip(large, LARGE, byte, bit)
    assert fingerprint(large) == before


def test_two_values_that_change_places_are_seen(large):
    before = fingerprint(large)
    flat = large.get_parameter(LARGE).detach().view(-1)
    first, second = float(flat[1]), float(flat[200])
    flat[1], flat[200] = second, first
    assert fingerprint(large) != before
    flat[1], flat[200] = first, second


@pytest.mark.parametrize("extra", [0, 1, 3])
def test_large_tensors_whose_bytes_are_no_multiple_of_four(extra):
    module = torch.nn.Module()
    module.register_buffer("x", torch.zeros((1 << 20) + 1 + extra, dtype=torch.uint8))
    before = fingerprint(module)
    module.x[-1] = 1
    assert fingerprint(module) != before


def test_a_renamed_parameter_is_another_model():
    def module(name):
        made = torch.nn.Module()
        made.register_buffer(name, torch.arange(6.0))
        return made

    assert fingerprint(module("a")) == fingerprint(module("a"))
    assert fingerprint(module("a")) != fingerprint(module("b"))


def test_another_type_or_shape_of_equal_bytes_is_another_model():
    def module(tensor):
        made = torch.nn.Module()
        made.register_buffer("a", tensor)
        return made

    plain = fingerprint(module(torch.zeros(4, 6)))
    assert fingerprint(module(torch.zeros(6, 4))) != plain
    assert fingerprint(module(torch.zeros(4, 6, dtype=torch.int32))) != plain


def test_bfloat16_scalars_and_empty_tensors_are_taken():
    model = tiny_llama().to(torch.bfloat16)
    before = fingerprint(model)
    flip(model, SMALL, 1, 7)
    assert fingerprint(model) != before
    module = torch.nn.Module()
    module.register_buffer("count", torch.tensor(3))
    module.register_buffer("none", torch.zeros(0))
    assert fingerprint(module)
