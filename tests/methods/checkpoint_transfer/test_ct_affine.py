"""The affine fit against numpy's least squares, planted maps, and the published files' layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kit.methods.checkpoint_transfer.affine import (
    AffineMap,
    HeldOutError,
    RidgeStatistics,
    maps_for,
)
from kit.methods.checkpoint_transfer.affine_files import METADATA, WEIGHTS, load_maps, save_maps

D = 6


def _pairs(seed: int = 0, rows: int = 40, length: int = 5) -> tuple[torch.Tensor, ...]:
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, length, D, generator=gen, dtype=torch.float64) * 3 + 7
    y = torch.randn(rows, length, D, generator=gen, dtype=torch.float64) + x[..., :1]
    mask = torch.rand(rows, length, generator=gen) < 0.7
    return x, y, mask


def _fit(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor, alpha: float, batch: int = 7):
    stats = RidgeStatistics()
    for start in range(0, len(x), batch):
        part = slice(start, start + batch)
        stats.add(x[part], y[part], mask[part])
    return stats.solve(alpha)


@pytest.mark.parametrize("alpha", [0.0, 0.01, 50.0])
def test_equals_numpy_least_squares(alpha: float) -> None:
    """Ridge is least squares on centred rows with sqrt(alpha) I appended."""
    x, y, mask = _pairs()
    found, quality = _fit(x, y, mask, alpha)
    rows, aims = x[mask].numpy(), y[mask].numpy()
    centred, aimed = rows - rows.mean(0), aims - aims.mean(0)
    tall = np.vstack([centred, np.sqrt(alpha) * np.eye(D)])
    w, *_ = np.linalg.lstsq(tall, np.vstack([aimed, np.zeros((D, D))]), rcond=None)
    b = aims.mean(0) - rows.mean(0) @ w
    np.testing.assert_allclose(found.weight.numpy(), w.T.astype(np.float32), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.bias.numpy(), b.astype(np.float32), rtol=1e-5, atol=1e-5)
    residual = aims - rows @ w - b
    assert quality.tokens == int(mask.sum())
    assert quality.mse == pytest.approx((residual**2).mean(), rel=1e-9)
    assert quality.r2 == pytest.approx(1 - (residual**2).sum() / (aimed**2).sum(), rel=1e-9)


def test_streaming_equals_one_batch() -> None:
    x, y, mask = _pairs()
    streamed, one = _fit(x, y, mask, 0.01, batch=3), _fit(x, y, mask, 0.01, batch=40)
    torch.testing.assert_close(streamed[0].weight, one[0].weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(streamed[0].bias, one[0].bias, rtol=0, atol=1e-6)
    assert streamed[1].mse == pytest.approx(one[1].mse, rel=1e-9)


def test_planted_map_is_recovered() -> None:
    x, _, mask = _pairs()
    gen = torch.Generator().manual_seed(5)
    weight = torch.randn(D, D, generator=gen, dtype=torch.float64)
    bias = torch.randn(D, generator=gen, dtype=torch.float64)
    found, quality = _fit(x, x @ weight.T + bias, mask, 0.0)
    torch.testing.assert_close(found.weight, weight.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.bias, bias.float(), rtol=1e-5, atol=1e-5)
    assert quality.r2 == pytest.approx(1, abs=1e-12)


def test_teacher_equal_to_student_gives_the_identity() -> None:
    x, _, mask = _pairs()
    found, _ = _fit(x, x, mask, 0.01)
    torch.testing.assert_close(found.weight, torch.eye(D), rtol=0, atol=1e-4)
    torch.testing.assert_close(found(x[mask].float()), x[mask].float(), rtol=0, atol=1e-3)


def test_padding_has_no_part() -> None:
    x, y, mask = _pairs()
    noisy_x, noisy_y = x.clone(), y.clone()
    noisy_x[~mask], noisy_y[~mask] = 1e6, torch.nan
    assert torch.equal(
        _fit(x, y, mask, 0.01)[0].weight, _fit(noisy_x, noisy_y, mask, 0.01)[0].weight
    )


def test_large_dimensions_lose_no_digits() -> None:
    """A dimension with mean 1e6 and spread 1, as outlier dimensions are: the fit is still exact."""
    x, _, mask = _pairs()
    x[..., 0] += 1e6
    found, quality = _fit(x, 2 * x, mask, 0.0)
    torch.testing.assert_close(found.weight, 2 * torch.eye(D), rtol=0, atol=1e-6)
    assert quality.mse < 1e-9


def test_held_out_error_is_that_of_other_tokens() -> None:
    x, y, mask = _pairs()
    found, _ = _fit(x, y, mask, 0.01)
    other_x, other_y, other_mask = _pairs(seed=3)
    held = HeldOutError(found)
    for part in (slice(0, 9), slice(9, 40)):
        held.add(other_x[part], other_y[part], other_mask[part])
    rows, aims = other_x[other_mask], other_y[other_mask]
    difference = rows @ found.weight.double().T + found.bias.double() - aims
    assert held.result().mse == pytest.approx(float(difference.square().mean()), rel=1e-12)
    total = (aims - aims.mean(0)).square().sum()
    expected = 1 - float(difference.square().sum() / total)
    assert held.result().r2 == pytest.approx(expected, rel=1e-10)
    raw = HeldOutError(None)
    raw.add(other_x, other_y, other_mask)
    assert raw.result().mse == pytest.approx(float((rows - aims).square().mean()), rel=1e-12)


def test_what_cannot_be_fitted_is_refused() -> None:
    x, y, mask = _pairs()
    with pytest.raises(ValueError, match="every position is padding"):
        _fit(x, y, torch.zeros_like(mask), 0.01)
    with pytest.raises(ValueError, match="do not determine"):
        _fit(x[:1], y[:1], torch.ones_like(mask[:1]), 0.0)
    with pytest.raises(ValueError, match="not negative"):
        _fit(x, y, mask, -1.0)
    with pytest.raises(ValueError, match="not finite"):
        _fit(x, y * torch.inf, mask, 0.01)
    with pytest.raises(ValueError, match="do not fit a mask"):
        _fit(x, y, mask[:, :2], 0.01)
    stats = RidgeStatistics()
    stats.add(x, y, mask)
    with pytest.raises(ValueError, match="after 6 and 6"):
        stats.add(x[..., :4], y, mask)
    with pytest.raises(ValueError, match="no held-out tokens"):
        HeldOutError(None).result()


def _maps(width: int = D) -> dict[int, AffineMap]:
    gen = torch.Generator().manual_seed(9)
    return {
        block: AffineMap(
            torch.randn(width, width, generator=gen), torch.randn(width, generator=gen)
        )
        for block in (-1, 4)
    }


def _save(folder: Path, maps: dict[int, AffineMap]) -> None:
    save_maps(folder, maps, alpha=0.01, provenance={"teacher": "t"}, fit={}, held_out={})


def test_maps_are_stored_in_the_published_layout(tmp_path: Path) -> None:
    """Layer l of the file is what block l - 1 returns."""
    maps = _maps()
    _save(tmp_path, maps)
    tensors = load_file(tmp_path / WEIGHTS)
    assert sorted(tensors) == ["layer_0.bias", "layer_0.weight", "layer_5.bias", "layer_5.weight"]
    metadata = json.loads((tmp_path / METADATA).read_text())
    assert metadata["layer_indices"] == [0, 5]
    assert metadata["hidden_dim"] == D
    assert metadata["alpha"] == 0.01
    assert metadata["provenance"] == {"teacher": "t"}
    linear = torch.nn.Linear(D, D)
    linear.load_state_dict({"weight": tensors["layer_5.weight"], "bias": tensors["layer_5.bias"]})
    read = load_maps(tmp_path)
    assert sorted(read) == [-1, 4]
    states = torch.randn(3, D)
    torch.testing.assert_close(linear(states), read[4](states))
    torch.testing.assert_close(maps[4](states), read[4](states), rtol=0, atol=0)


def test_published_metadata_alone_is_enough(tmp_path: Path) -> None:
    weight, bias = torch.randn(D, D).half(), torch.randn(D).half()
    save_file({"layer_5.weight": weight, "layer_5.bias": bias}, tmp_path / WEIGHTS)
    (tmp_path / METADATA).write_text('{"layer_indices": [5], "hidden_dim": 6, "alpha": 0.01}')
    read = load_maps(tmp_path)[4]
    assert read.weight.dtype == torch.float32
    assert torch.equal(read.weight, weight.float())


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ('{"layer_indices": [6], "hidden_dim": 6}', "no layer_6.weight"),
        ('{"layer_indices": [5], "hidden_dim": 8}', "says hidden_dim 8"),
        ('{"layer_indices": [5, 5], "hidden_dim": 6}', "names a layer twice"),
        ('{"layer_indices": [], "hidden_dim": 6}', "whole numbers"),
        ('{"layer_indices": ["5"], "hidden_dim": 6}', "whole numbers"),
        ('{"layer_indices": [5, -1], "hidden_dim": 6}', "whole numbers"),
        ('{"layer_indices": [5], "hidden_dim": 0}', "whole numbers"),
        ('{"layer_indices": [5], "hidden_dim": "6"}', "whole numbers"),
        ('{"layer_indices": 5, "hidden_dim": 6}', "whole numbers"),
        ('{"hidden_dim": 6}', "no description"),
        ("[", "no description"),
    ],
)
def test_damaged_folders_are_refused(tmp_path: Path, metadata: str, match: str) -> None:
    save_file({"layer_5.weight": torch.eye(D), "layer_5.bias": torch.zeros(D)}, tmp_path / WEIGHTS)
    (tmp_path / METADATA).write_text(metadata)
    with pytest.raises(ValueError, match=match):
        load_maps(tmp_path)


def test_missing_or_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no affine_transforms\.safetensors"):
        load_maps(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"not safetensors")
    (tmp_path / METADATA).write_text('{"layer_indices": [5], "hidden_dim": 6}')
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_maps(tmp_path)
    with pytest.raises(ValueError, match="one width"):
        _save(tmp_path, _maps() | {7: AffineMap(torch.eye(3), torch.zeros(3))})


def test_a_run_never_falls_back_to_raw_states() -> None:
    maps = _maps()
    assert sorted(maps_for(maps, [4], width=D, depth=8)) == [4]
    with pytest.raises(ValueError, match="no affine map for block 3; there are maps for: -1, 4"):
        maps_for(maps, [3, 4], width=D, depth=8)
    with pytest.raises(ValueError, match="block 8 of a model with blocks 0 to 7"):
        maps_for(maps, [8], width=D, depth=8)
    with pytest.raises(ValueError, match="belongs to another model"):
        maps_for(maps, [4], width=D + 2, depth=8)
    with pytest.raises(ValueError, match="fitted on another model"):
        maps[4](torch.zeros(2, D + 1))
    with pytest.raises(ValueError, match="needs weight"):
        AffineMap(torch.eye(3), torch.zeros(4))
