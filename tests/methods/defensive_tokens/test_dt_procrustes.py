"""Procrustes: equal to scipy, orthogonal, honest about what is not unique."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes

from kit.methods.defensive_tokens.procrustes import (
    orthogonal_map,
    reverse,
    unit_length_weights,
)
from kit.methods.defensive_tokens.transfer import haar_orthogonal


def matrices(rows, d, *, condition=1.0, noise=0.3, seed=0):
    """Source rows with the given condition number, and a rotated noisy target."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.logspace(0, -float(np.log10(condition)), d, dtype=torch.float64)
    source = torch.randn(rows, d, dtype=torch.float64, generator=generator) * spectrum
    source = source @ haar_orthogonal(d, seed + 1)
    noisy = noise * torch.randn(rows, d, dtype=torch.float64, generator=generator) * spectrum
    return source, source @ haar_orthogonal(d, seed + 2) + noisy


@pytest.mark.parametrize("condition", [1.0, 30.0])
@pytest.mark.parametrize(("rows", "d"), [(40, 8), (500, 32), (90, 64)])
def test_equals_scipy(condition, rows, d):
    source, target = matrices(rows, d, condition=condition)
    expected, total = orthogonal_procrustes(source.numpy(), target.numpy())
    got = orthogonal_map(source, target, chunk_rows=37)
    assert np.abs(got.matrix.numpy() - expected).max() < 1e-10
    assert float(got.singular_values.sum()) == pytest.approx(total, rel=1e-12)


def test_equals_scipy_when_ill_conditioned():
    """cond(M) about 1e5: the residual agrees to 1e-10, the map to what the conditioning leaves."""
    source, target = matrices(400, 24, condition=300.0, noise=0.05)
    expected, _ = orthogonal_procrustes(source.numpy(), target.numpy())
    got = orthogonal_map(source, target)
    values = got.singular_values
    assert float(values[0] / values[-1]) > 3e4
    assert np.abs(got.matrix.numpy() - expected).max() < 1e-10
    residual = np.linalg.norm(source.numpy() @ expected - target.numpy())
    assert got.residual == pytest.approx(residual, rel=1e-10)
    assert got.orthogonality_error < 1e-12


def test_a_pure_rotation_is_recovered_exactly():
    source, _ = matrices(200, 16)
    rotation = haar_orthogonal(16, 9)
    got = orthogonal_map(source, source @ rotation)
    assert float((got.matrix - rotation).abs().max()) < 1e-12
    assert got.relative_residual < 1e-6
    assert got.correlation == pytest.approx(1.0)
    assert got.optimal_scale == pytest.approx(1.0)
    assert got.unique


def test_reflections_are_allowed():
    source, _ = matrices(200, 6)
    mirror = torch.diag(torch.tensor([1.0, 1, 1, 1, 1, -1], dtype=torch.float64))
    got = orthogonal_map(source, source @ mirror)
    assert float(torch.linalg.det(got.matrix)) == pytest.approx(-1)


def test_the_reverse_direction_is_the_transpose():
    source, target = matrices(200, 16)
    there, back = orthogonal_map(source, target), orthogonal_map(target, source)
    assert float((reverse(there) - back.matrix).abs().max()) < 1e-12
    assert there.residual == pytest.approx(back.residual, rel=1e-12)
    # Relative residuals differ, because each divides by its own target's norm.
    assert there.relative_residual * there.target_norm == pytest.approx(
        back.relative_residual * back.target_norm
    )


def test_identity_diagnostics():
    source, _ = matrices(100, 8)
    got = orthogonal_map(source, source)
    assert got.distance_from_identity < 1e-12
    assert got.mean_trace == pytest.approx(1.0)
    assert got.source_norm == pytest.approx(float(source.norm()))


def test_an_unrelated_target_is_as_far_from_identity_as_a_random_rotation():
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn(300, 64, generator=generator) for _ in range(2))
    assert orthogonal_map(source, target).distance_from_identity == pytest.approx(2**0.5, abs=0.1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), d=st.integers(1, 12), rows=st.integers(1, 40))
def test_always_orthogonal_and_never_worse_than_a_random_rotation(seed, d, rows):
    generator = torch.Generator().manual_seed(seed)
    source, target = (torch.randn(rows, d, generator=generator) for _ in range(2))
    got = orthogonal_map(source, target)
    assert got.orthogonality_error < 1e-10
    other = source.double() @ haar_orthogonal(d, seed) - target.double()
    assert got.residual <= float(other.norm()) + 1e-9
    assert rows >= d or not got.unique


def test_a_rank_deficient_product_is_flagged():
    source, target = matrices(200, 16)
    source[:, 3] = 0
    got = orthogonal_map(source, target)
    assert not got.unique
    assert got.orthogonality_error < 1e-12, "svd still completes it to an orthogonal matrix"


@pytest.mark.parametrize("chunk_rows", [1, 7, 1000])
def test_row_chunks_change_nothing(chunk_rows):
    source, target = matrices(150, 8)
    whole = orthogonal_map(source, target)
    parts = orthogonal_map(source, target, chunk_rows=chunk_rows)
    assert float((whole.matrix - parts.matrix).abs().max()) < 1e-13


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_low_precision_rows_are_upcast_before_the_product(dtype):
    source, target = (m.to(dtype) for m in matrices(300, 16))
    expected, _ = orthogonal_procrustes(source.double().numpy(), target.double().numpy())
    got = orthogonal_map(source, target)
    assert np.abs(got.matrix.numpy() - expected).max() < 1e-10
    assert got.matrix.dtype is torch.float64


def test_the_optimal_scale_minimises_the_scaled_residual():
    source, target = matrices(200, 8)
    got = orthogonal_map(source, 1.5 * target)
    mapped = source @ got.matrix

    def residual(scale):
        return float((scale * mapped - 1.5 * target).norm())

    best = residual(got.optimal_scale)
    assert best < residual(got.optimal_scale * 1.01)
    assert best < residual(got.optimal_scale * 0.99)
    assert got.scale == 1.0
    assert orthogonal_map(source, 1.5 * target, scale=True).scale == got.optimal_scale


def test_centering_removes_a_common_offset():
    source, _ = matrices(300, 8)
    rotation = haar_orthogonal(8, 5)
    target = source @ rotation + 7.0
    assert float((orthogonal_map(source, target).matrix - rotation).abs().max()) > 1e-3
    centred = orthogonal_map(source, target, center=True)
    assert float((centred.matrix - rotation).abs().max()) < 1e-10
    assert centred.relative_residual < 1e-6


def test_a_row_of_weight_zero_is_no_row():
    source, target = matrices(100, 8)
    weights = torch.ones(100)
    weights[60:] = 0
    got = orthogonal_map(source, target, row_weights=weights)
    expected = orthogonal_map(source[:60], target[:60])
    assert float((got.matrix - expected.matrix).abs().max()) < 1e-12
    centred = orthogonal_map(source, target, row_weights=weights, center=True)
    alone = orthogonal_map(source[:60], target[:60], center=True)
    assert float((centred.matrix - alone.matrix).abs().max()) < 1e-12


def test_an_integer_weight_is_a_repeated_row():
    source, target = matrices(50, 6)
    weights = torch.ones(50)
    weights[4] = 3
    repeated = torch.cat([torch.arange(50), torch.tensor([4, 4])])
    got = orthogonal_map(source, target, row_weights=weights)
    expected = orthogonal_map(source[repeated], target[repeated])
    assert float((got.matrix - expected.matrix).abs().max()) < 1e-12


def test_unit_length_weights_are_the_fit_of_rows_of_length_one():
    source, target = matrices(120, 8)
    source = source * torch.linspace(0.1, 9.0, 120)[:, None]
    source[7] = 0
    weights = unit_length_weights(source, target, chunk_rows=50)
    assert float(weights[7]) == 0.0
    got = orthogonal_map(source, target, row_weights=weights)
    keep = torch.arange(120) != 7
    scaled = [
        m[keep].double() / m[keep].double().norm(dim=1, keepdim=True) for m in (source, target)
    ]
    expected = orthogonal_map(*scaled)
    assert float((got.matrix - expected.matrix).abs().max()) < 1e-12
    plain = orthogonal_map(source, target)
    assert float((got.matrix - plain.matrix).abs().max()) > 1e-4, "the weights decide something"


def test_apply_maps_vectors_with_the_scale():
    source, target = matrices(100, 8)
    got = orthogonal_map(source, target, scale=True)
    vectors = torch.randn(3, 8)
    expected = (vectors.double() @ got.matrix * got.scale).float()
    assert torch.equal(got.apply(vectors), expected)


def bad(rows=4, d=2):
    return torch.randn(rows, d, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("source", "target", "settings", "message"),
    [
        (bad(), bad(5), {}, "must be equal"),
        (bad(), bad(d=3), {}, "must be equal"),
        (bad(0), bad(0), {}, "share no rows"),
        (bad() / 0, bad(), {}, "source embeddings contain values that are not finite"),
        (bad(), bad() * float("nan"), {}, "target embeddings contain"),
        (bad(), bad(), {"row_weights": torch.ones(3)}, "row_weights of shape"),
        (bad(), bad(), {"row_weights": torch.zeros(4)}, "not all zero"),
        (bad(), bad(), {"row_weights": -torch.ones(4)}, "non-negative"),
    ],
)
def test_unusable_input_is_refused(source, target, settings, message):
    with pytest.raises(ValueError, match=message):
        orthogonal_map(source, target, **settings)
