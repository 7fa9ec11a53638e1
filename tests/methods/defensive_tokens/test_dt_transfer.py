"""Transfer, its ablations and its controls."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.methods.defensive_tokens.geometry import cosines, geometry
from kit.methods.defensive_tokens.procrustes import orthogonal_map
from kit.methods.defensive_tokens.transfer import (
    direct_copy,
    haar_orthogonal,
    mean_row_norm,
    norm_rescaled,
    normal_init,
    random_like_norm,
    random_rotation_like,
    transfer,
    vocabulary_init,
    vocabulary_rescaled,
)


@pytest.fixture
def alignment():
    source = torch.randn(100, 16, generator=torch.Generator().manual_seed(0))
    drifted = source + 0.3 * torch.randn(100, 16, generator=torch.Generator().manual_seed(1))
    return orthogonal_map(source, drifted)


def test_transfer_keeps_norms_and_inner_products(alignment):
    prefix = 80 * normal_init(5, 16, 0)
    moved = transfer(prefix, alignment)
    torch.testing.assert_close(moved @ moved.T, prefix @ prefix.T, rtol=1e-5, atol=1e-2)
    assert moved.dtype is torch.float32


def test_direct_copy_is_a_copy():
    prefix = normal_init(5, 16, 0)
    copied = direct_copy(prefix, 16)
    assert torch.equal(copied, prefix)
    copied[0] = 0
    assert not torch.equal(copied, prefix)


def test_width_mismatches_are_refused(alignment):
    with pytest.raises(ValueError, match="width of 8"):
        direct_copy(normal_init(5, 16, 0), 8)
    with pytest.raises(ValueError, match="width of 16"):
        transfer(normal_init(5, 8, 0), alignment)


def test_norm_rescaled_takes_each_native_norm_and_keeps_directions():
    prefix, native = normal_init(5, 16, 0), 3 * normal_init(5, 16, 1)
    scaled = norm_rescaled(prefix, native)
    torch.testing.assert_close(scaled.norm(dim=1), native.norm(dim=1))
    assert cosines(prefix, scaled).diagonal().tolist() == pytest.approx([1.0] * 5)
    with pytest.raises(ValueError, match="differ"):
        norm_rescaled(prefix, native[:4])


def test_the_documented_factor_is_the_ratio_of_token_norms_not_of_vocabulary_norms():
    """1.028 from the tokens' norms, 1.135 from the vocabularies' (defensive_tokens.md, 4 and 5)."""
    older = torch.tensor([82.748, 87.106, 81.482, 82.870, 80.914])
    newer = torch.tensor([86.458, 82.757, 84.954, 81.598, 90.963])
    directions = torch.nn.functional.normalize(normal_init(5, 64, 0))
    scaled = norm_rescaled(directions * older[:, None], directions * newer[:, None])
    factor = float(scaled.norm(dim=1).mean() / older.mean())
    assert f"{factor:.3f}" == "1.028"
    rows = torch.nn.functional.normalize(normal_init(40, 64, 1))
    moved = vocabulary_rescaled(directions, 0.591 * rows, 0.671 * rows)
    assert f"{float(moved.norm(dim=1).mean()):.3f}" == "1.135"


def test_vocabulary_rescaled_uses_mean_row_norms():
    prefix, source = normal_init(5, 16, 0), normal_init(50, 16, 1)
    scaled = vocabulary_rescaled(prefix, source, 2 * source)
    torch.testing.assert_close(scaled, 2 * prefix)
    assert mean_row_norm(source, chunk_rows=7) == pytest.approx(float(source.norm(dim=1).mean()))
    with pytest.raises(ValueError, match="without rows"):
        mean_row_norm(source[:0])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_random_rotation_moves_as_far_and_is_orthogonal(seed):
    source = torch.randn(60, 8, generator=torch.Generator().manual_seed(seed))
    noise = torch.randn(60, 8, generator=torch.Generator().manual_seed(seed + 1))
    w = orthogonal_map(source, source + 0.5 * noise).matrix
    r = random_rotation_like(w, seed)
    eye = torch.eye(8, dtype=torch.float64)
    assert float((r.T @ r - eye).norm()) < 1e-12
    assert float((r - eye).norm()) == pytest.approx(float((w - eye).norm()), abs=1e-12)


def test_random_rotations_are_seeded_and_different_from_the_map(alignment):
    first, second = (random_rotation_like(alignment.matrix, seed) for seed in (0, 1))
    assert torch.equal(first, random_rotation_like(alignment.matrix, 0))
    assert float((first - second).norm()) > 0.05
    assert float((first - alignment.matrix).norm()) > 0.05


def test_haar_matrices_have_no_preferred_direction():
    mean = torch.stack([haar_orthogonal(6, seed) for seed in range(400)]).mean(dim=0)
    assert float(mean.abs().max()) < 0.1


def test_random_like_norm_keeps_norms_and_forgets_directions():
    prefix = 80 * normal_init(5, 512, 0)
    other = random_like_norm(prefix, 1)
    torch.testing.assert_close(other.norm(dim=1), prefix.norm(dim=1))
    assert float(cosines(prefix, other).abs().max()) < 0.2
    assert torch.equal(other, random_like_norm(prefix, 1))


def test_the_papers_start_has_norm_root_d():
    """Reference page, section 4: N(0, I) alone gives 64 at d = 4096."""
    norms = normal_init(5, 4096, 0).norm(dim=1)
    assert bool(((norms - 64).abs() < 3).all())


def test_vocabulary_init_follows_mean_and_deviation():
    table = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
    table = table * torch.arange(1, 9) + torch.arange(8)
    drawn = vocabulary_init(table, 4000, 0)
    torch.testing.assert_close(drawn.mean(dim=0), table.mean(dim=0), atol=0.5, rtol=0)
    torch.testing.assert_close(drawn.std(dim=0), table.std(dim=0), atol=0, rtol=0.1)
    assert torch.equal(drawn, vocabulary_init(table, 4000, 0))
    assert vocabulary_init(table.to(torch.bfloat16), 2, 0).dtype is torch.float32


def test_geometry_of_a_scaled_copy():
    prefix = normal_init(5, 64, 0)
    facts = geometry(2 * prefix, prefix)
    assert facts.cosines == pytest.approx([1.0] * 5)
    assert facts.norms == pytest.approx([2 * n for n in facts.reference_norms])
    assert facts.l1_norms == pytest.approx((2 * prefix).abs().sum(dim=1).tolist())
    assert facts.largest == pytest.approx((2 * prefix).abs().amax(dim=1).tolist())
    assert len(facts.cross_cosines) == 5
    assert abs(facts.mean_within) < 0.2


def test_geometry_of_one_vector_and_of_zeros():
    one = normal_init(1, 8, 0)
    assert geometry(one, one).mean_within == 0
    assert geometry(torch.zeros(1, 8), one).cosines == [0.0]
    with pytest.raises(ValueError, match="reference"):
        geometry(one, normal_init(2, 8, 0))
