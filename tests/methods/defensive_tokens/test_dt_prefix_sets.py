"""Several prefixes in one file: exact, refused when unusable, in an order people expect."""

from __future__ import annotations

import pytest
import torch

from kit.methods.defensive_tokens.prefix_sets import load_sets, save_sets


def normal(seed):
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))


def test_saved_and_loaded_is_equal_in_every_bit(tmp_path):
    sets = {"procrustes": normal(0), "copy": normal(1)}
    save_sets(tmp_path / "p", sets)
    loaded = load_sets(tmp_path / "p")
    assert set(loaded) == set(sets)
    assert all(torch.equal(loaded[name], tokens) for name, tokens in sets.items())


def test_steps_come_in_the_order_of_their_numbers(tmp_path):
    names = ["adapt-25", "adapt-200", "adapt-5", "adapt-0", "scratch-7", "copy", "norm-rescaled"]
    save_sets(tmp_path / "p", {name: normal(0) for name in names})
    assert list(load_sets(tmp_path / "p")) == [
        "adapt-0",
        "adapt-5",
        "adapt-25",
        "adapt-200",
        "copy",
        "norm-rescaled",
        "scratch-7",
    ]


def test_kept_as_float32_whatever_came_in(tmp_path):
    table = normal(0).double().requires_grad_()
    save_sets(tmp_path / "p", {"wide": table, "turned": normal(1).T})
    loaded = load_sets(tmp_path / "p")
    assert {tokens.dtype for tokens in loaded.values()} == {torch.float32}
    assert torch.equal(loaded["wide"], table.detach().float())
    assert torch.equal(loaded["turned"], normal(1).T)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.zeros(5), r"bad: shape \(5,\) is not \[n, d\]"),
        (torch.zeros(0, 8), "bad: shape"),
        (torch.full((5, 8), float("nan")), "bad: contains values that are not finite"),
        (torch.full((5, 8), 1e300, dtype=torch.float64), "bad: contains values"),
    ],
)
def test_what_is_no_prefix_is_refused_and_nothing_written(tmp_path, tokens, message):
    with pytest.raises(ValueError, match=message):
        save_sets(tmp_path / "p", {"good": normal(0), "bad": tokens})
    assert not (tmp_path / "p").exists()


def test_one_tensor_under_two_names_can_be_saved(tmp_path):
    tokens = normal(0)
    save_sets(tmp_path / "p", {"copy": tokens, "procrustes": tokens})
    assert torch.equal(load_sets(tmp_path / "p")["copy"], tokens)
