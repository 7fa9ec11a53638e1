"""The transferred prefix and its controls: norms kept, equally far from a plain copy."""

from __future__ import annotations

import pytest
import torch

from kit.methods.defensive_tokens.procrustes import orthogonal_map
from kit.methods.defensive_tokens.transfer import random_rotation_like
from kit.methods.defensive_tokens.transfer_sets import transfer_geometry, transfer_sets

WIDTH = 24


def normal(rows, seed):
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def alignment():
    source = normal(90, 0)
    return orthogonal_map(source, 0.8 * source + 0.4 * normal(90, 1))


PREFIX, NATIVE = normal(5, 2) * 9, normal(5, 3) * 4


@pytest.fixture(scope="module")
def sets(alignment):
    return transfer_sets(PREFIX, NATIVE, alignment, seed=3)


def test_names_shapes_and_type(sets):
    assert list(sets) == ["procrustes", "copy", "norm-rescaled", "rotation", "random-norm"]
    for tokens in sets.values():
        assert (tuple(tokens.shape), tokens.dtype) == ((5, WIDTH), torch.float32)


@pytest.mark.parametrize("name", ["procrustes", "copy", "rotation", "random-norm"])
def test_norms_are_kept(sets, name):
    torch.testing.assert_close(sets[name].norm(dim=1), PREFIX.norm(dim=1))


def test_the_rescaled_row_has_the_native_norms(sets):
    torch.testing.assert_close(sets["norm-rescaled"].norm(dim=1), NATIVE.norm(dim=1))


def test_the_random_rotation_is_as_far_from_the_identity_as_the_map(alignment, sets):
    rotation = random_rotation_like(alignment.matrix, 3)
    eye = torch.eye(WIDTH, dtype=torch.float64)
    assert float((rotation - eye).norm()) == pytest.approx(float((alignment.matrix - eye).norm()))
    torch.testing.assert_close(sets["rotation"], (PREFIX.double() @ rotation).float())
    assert not torch.allclose(sets["rotation"], sets["procrustes"], atol=0.1)


def test_inner_products_are_kept_by_both_rotations(sets):
    for name in ("procrustes", "rotation"):
        ours = sets[name].double() @ sets[name].double().T
        torch.testing.assert_close(ours, PREFIX.double() @ PREFIX.double().T, rtol=1e-5, atol=1e-3)


def test_the_seed_moves_the_random_controls_only(alignment, sets):
    again = transfer_sets(PREFIX, NATIVE, alignment, seed=3)
    other = transfer_sets(PREFIX, NATIVE, alignment, seed=4)
    for name, tokens in sets.items():
        assert torch.equal(tokens, again[name])
        assert torch.equal(tokens, other[name]) == (name not in ("rotation", "random-norm"))


def test_only_what_is_asked_for_is_computed(alignment, sets, monkeypatch):
    def expensive(matrix, seed):
        raise AssertionError("nobody asked for a random rotation")

    monkeypatch.setattr(
        "kit.methods.defensive_tokens.transfer_sets.random_rotation_like", expensive
    )
    asked = ["random-norm", "procrustes", "copy", "norm-rescaled"]
    made = transfer_sets(PREFIX, NATIVE, alignment, seed=3, names=asked)
    assert list(made) == asked
    for name, tokens in made.items():
        assert torch.equal(tokens, sets[name])
    with pytest.raises(ValueError, match="no transferred set 'best'"):
        transfer_sets(PREFIX, NATIVE, alignment, seed=3, names=["best"])


def test_what_is_made_shares_no_memory_with_the_input(alignment):
    own = PREFIX.clone()
    made = transfer_sets(own, NATIVE, alignment, seed=0)
    for tokens in made.values():
        tokens.zero_()
    assert torch.equal(own, PREFIX)


def test_another_number_or_width_of_vectors_is_refused(alignment):
    with pytest.raises(ValueError, match="differ"):
        transfer_sets(PREFIX[:3], NATIVE, alignment, seed=0)
    with pytest.raises(ValueError, match=r"shape \(5, 12\) does not fit a width of 24"):
        transfer_sets(PREFIX[:, :12], NATIVE, alignment, seed=0)


def test_the_geometry_of_every_set_and_of_both_ends(sets):
    table = transfer_geometry(PREFIX, NATIVE, sets)
    assert set(table) == {*sets, "native", "source"}
    assert table["native"]["cosine_native"] == pytest.approx(1.0)
    norms = PREFIX.double().norm(dim=1)
    assert table["copy"] == table["source"]
    assert table["copy"]["norm_mean"] == pytest.approx(float(norms.mean()))
    assert table["procrustes"]["norm_min"] == pytest.approx(float(norms.min()))
    assert table["rotation"]["norm_max"] == pytest.approx(float(norms.max()))
    l1 = PREFIX.double().abs().sum(dim=1)
    assert table["copy"]["norm_l1_mean"] == pytest.approx(float(l1.mean()))
    assert table["copy"]["norm_l1_max"] == pytest.approx(float(l1.max()))
    assert -1 <= table["random-norm"]["cosine_native"] <= 1
    assert table["copy"]["cosine_source"] == pytest.approx(1.0)
    cosine = torch.nn.functional.cosine_similarity(PREFIX, sets["procrustes"]).mean()
    assert table["procrustes"]["cosine_source"] == pytest.approx(float(cosine), abs=1e-6)
