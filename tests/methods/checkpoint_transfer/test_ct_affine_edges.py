"""Affine maps where little is known: one token, constant states, borders of what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kit.methods.checkpoint_transfer.affine import (
    AffineMap,
    FitQuality,
    HeldOutError,
    RidgeStatistics,
    maps_for,
)
from kit.methods.checkpoint_transfer.affine_files import METADATA, WEIGHTS, load_maps, save_maps
from tests.refused import refused


def _states(rows: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def _all(rows: int) -> torch.Tensor:
    return torch.ones(rows, dtype=torch.bool)


def test_a_first_batch_of_a_single_token() -> None:
    """Batches of one token each give what numpy gives of all of them, with the published alpha."""
    x, y = _states(9, 3, 0), _states(9, 2, 1)
    statistics = RidgeStatistics()
    for at in range(9):
        statistics.add(x[at : at + 1], y[at : at + 1], _all(1))
    affine, quality = statistics.solve()
    xs, ys = x.double().numpy(), y.double().numpy()
    centred = xs - xs.mean(0)
    weight = np.linalg.solve(centred.T @ centred + 0.01 * np.eye(3), centred.T @ (ys - ys.mean(0)))
    np.testing.assert_allclose(affine.weight, weight.T, rtol=1e-5, atol=1e-6)
    errors = HeldOutError(affine)
    for at in range(9):
        errors.add(x[at : at + 1], y[at : at + 1], _all(1))
    residual = ((xs @ weight + ys.mean(0) - xs.mean(0) @ weight - ys) ** 2).sum()
    total = ((ys - ys.mean(0)) ** 2).sum()
    for found in (quality, errors.result()):
        assert found.tokens == 9
        assert found.mse == pytest.approx(residual / 18, rel=1e-5)
        assert found.r2 == pytest.approx(1 - residual / total, rel=1e-5)


@pytest.mark.parametrize(("shift", "r2"), [(0.0, 1.0), (2.0, -math.inf)])
def test_states_that_do_not_vary(shift: float, r2: float) -> None:
    """Nothing is to be explained: right is right, and wrong is infinitely wrong."""
    constant = torch.ones(4, 2)
    errors = HeldOutError(None)
    errors.add(constant + shift, constant, _all(4))
    assert errors.result() == FitQuality(4, shift**2, r2)


def test_a_batch_of_padding_alone_adds_nothing() -> None:
    x, y = _states(5, 2, 0), _states(5, 2, 1)
    statistics, errors = RidgeStatistics(), HeldOutError(None)
    into: RidgeStatistics | HeldOutError
    for into in (statistics, errors):
        into.add(x, y, ~_all(5))
        into.add(x, y, _all(5))
    assert statistics.tokens == 5
    assert errors.result().mse == pytest.approx(float((x - y).square().mean()))


@pytest.mark.parametrize(
    ("source", "target", "wrong"),
    [((4, 3), (4, 2), False), ((4, 2), (4, 2), True), ((4, 3), (4, 3), True),
     ((5, 3), (4, 2), True), ((4, 3), (5, 2), True)],
)  # fmt: skip
def test_later_batches_have_the_widths_of_the_first(
    source: tuple[int, int], target: tuple[int, int], wrong: bool
) -> None:
    statistics = RidgeStatistics()
    statistics.add(torch.ones(2, 3), torch.ones(2, 2), _all(2))
    refused(
        lambda: statistics.add(torch.ones(source), torch.ones(target), _all(4)), wrong, "states"
    )
    assert statistics.tokens == (2 if wrong else 6)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_single_state_that_is_not_finite_is_refused(which: int, value: float) -> None:
    states = [torch.ones(3, 2), torch.ones(3, 2)]
    states[which][1, 1] = value
    for into in (RidgeStatistics(), HeldOutError(None)):
        with pytest.raises(ValueError, match="not finite"):
            into.add(*states, _all(3))
        into.add(*states, torch.tensor([True, False, True]))


@pytest.mark.parametrize(("alpha", "wrong"), [(-0.01, True), (0.0, False), (0.5, False)])
def test_a_strength_is_not_negative(alpha: float, wrong: bool) -> None:
    statistics = RidgeStatistics()
    statistics.add(_states(9, 2, 0), _states(9, 2, 1), _all(9))
    refused(lambda: statistics.solve(alpha), wrong, "not negative")


@pytest.mark.parametrize(
    ("weight", "bias", "wrong"),
    [((2, 3), (2,), False), ((2, 3), (3,), True), ((2, 3), (2, 1), True), ((2,), (2,), True)],
)
def test_the_shapes_of_a_map(weight: tuple[int, ...], bias: tuple[int, ...], wrong: bool) -> None:
    refused(lambda: AffineMap(torch.zeros(weight), torch.zeros(bias)), wrong, "d_out, d_in")


@pytest.mark.parametrize(
    ("block", "wrong"), [(-2, True), (-1, False), (0, False), (3, False), (4, True)]
)
def test_blocks_of_a_model(block: int, wrong: bool) -> None:
    maps = {at: AffineMap(torch.eye(2), torch.zeros(2)) for at in range(-3, 6)}
    refused(lambda: maps_for(maps, [block], width=2, depth=4), wrong, "blocks 0 to 3")


@pytest.mark.parametrize(("shape", "wrong"), [((2, 2), False), ((2, 3), True), ((3, 2), True)])
def test_maps_are_as_wide_as_the_model_on_both_sides(shape: tuple[int, int], wrong: bool) -> None:
    maps = {0: AffineMap(torch.zeros(shape), torch.zeros(shape[0]))}
    refused(lambda: maps_for(maps, [0], width=2, depth=1), wrong, "another model")


def _saved(folder: Path, maps: dict[int, AffineMap]) -> None:
    fit = {block: FitQuality(10 + block, 0.5, 0.75) for block in maps}
    held_out = {block: FitQuality(20 + block, 0.6, 0.5) for block in maps}
    save_maps(folder, maps, alpha=0.1, provenance={"texts": 3}, fit=fit, held_out=held_out)


def test_errors_stand_under_the_layer_of_their_map(tmp_path: Path) -> None:
    maps = {b: AffineMap(torch.full((2, 2), float(b)), torch.ones(2)) for b in (3, -1, 0)}
    for _ in range(2):
        _saved(tmp_path / "new" / "deep", maps)
    text = (tmp_path / "new/deep" / METADATA).read_text()
    metadata = json.loads(text)
    assert text == json.dumps(metadata, indent=2, sort_keys=True) + "\n", "the same bytes again"
    assert metadata["layer_indices"] == [0, 1, 4]
    assert (metadata["hidden_dim"], metadata["alpha"]) == (2, 0.1)
    for kind, tokens in (("fit", 10), ("held_out", 20)):
        found = {layer: quality["tokens"] for layer, quality in metadata[kind].items()}
        assert found == {"0": tokens - 1, "1": tokens, "4": tokens + 3}
    back = load_maps(tmp_path / "new/deep")
    assert {block: affine.weight[0, 0].item() for block, affine in back.items()} == {
        -1: -1.0, 0: 0.0, 3: 3.0
    }  # fmt: skip


@pytest.mark.parametrize("shapes", [[], [(2, 3)], [(2, 2), (3, 3)]])
def test_a_file_holds_square_maps_of_one_width(
    tmp_path: Path, shapes: list[tuple[int, int]]
) -> None:
    maps = {at: AffineMap(torch.zeros(s), torch.zeros(s[0])) for at, s in enumerate(shapes)}
    with pytest.raises(ValueError, match="square maps"):
        _saved(tmp_path / "a", maps)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("layers", "width", "wrong"),
    [
        ([1], 2, ""), ([0, 1], 2, ""), ([], 2, "not empty"), ([-1], 2, "whole numbers"),
        ([1, -1], 2, "whole numbers"),
        ([1, "0"], 2, "whole numbers"),
        ([True], 2, "whole numbers"), ([1.0], 2, "whole numbers"), ("1", 2, "whole numbers"),
        ([1], 0, "whole numbers"), ([1], True, "whole numbers"), ([1], 2.0, "whole numbers"),
        ([1, 1], 2, "a layer twice"), ([2], 2, "layer_2.weight"), ([1], 1, "hidden_dim 1"),
        ([1], 3, "hidden_dim 3"),
    ],
)  # fmt: skip
def test_what_a_description_declares(tmp_path: Path, layers: Any, width: Any, wrong: str) -> None:
    maps = {block: AffineMap(torch.eye(2), torch.zeros(2)) for block in (-1, 0)}
    _saved(tmp_path, maps)
    text = json.dumps({"layer_indices": layers, "hidden_dim": width})
    (tmp_path / METADATA).write_text(text)
    refused(lambda: load_maps(tmp_path), bool(wrong), wrong)


@pytest.mark.parametrize(
    ("tensors", "wrong"),
    [
        ({}, ""),
        ({"bias": None}, "no layer_1.bias"),
        ({"weight": None}, "no layer_1.weight"),
        ({"bias": torch.zeros(3)}, "hidden_dim 2"),
        ({"weight": torch.zeros(2, 3)}, "hidden_dim 2"),
        ({"bias": torch.tensor([0.0, math.nan])}, "not finite"),
        ({"weight": torch.tensor([[0.0, 1.0], [math.inf, 0.0]])}, "not finite"),
    ],
)
def test_tensors_that_are_damaged(tmp_path: Path, tensors: dict[str, Any], wrong: str) -> None:
    from safetensors.torch import save_file

    _saved(tmp_path, {0: AffineMap(torch.eye(2), torch.zeros(2))})
    whole = {"weight": torch.eye(2), "bias": torch.zeros(2), **tensors}
    kept = {f"layer_1.{name}": value for name, value in whole.items() if value is not None}
    save_file(kept, tmp_path / WEIGHTS)
    refused(lambda: load_maps(tmp_path), bool(wrong), wrong)


@pytest.mark.parametrize("name", [WEIGHTS, METADATA])
def test_both_files_are_needed(tmp_path: Path, name: str) -> None:
    _saved(tmp_path, {0: AffineMap(torch.eye(2), torch.zeros(2))})
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"no {name}"):
        load_maps(tmp_path)
