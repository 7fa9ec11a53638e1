"""Presets differ from the corrected recipe exactly where they say, each with a source."""

from __future__ import annotations

import dataclasses

import pytest

from kit.methods.checkpoint_transfer.presets import PRESETS, UNDECIDED, make_recipe
from kit.methods.checkpoint_transfer.recipe import Recipe, parse_bool


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_difference_is_named_and_sourced(name: str) -> None:
    recipe = make_recipe(name, retain_coef=5, remove_coef=5)
    corrected = Recipe(5, 5)
    differing = {
        field.name
        for field in dataclasses.fields(Recipe)
        if getattr(recipe, field.name) != getattr(corrected, field.name)
    }
    assert differing == set(PRESETS[name])
    for difference in PRESETS[name].values():
        assert "section" in difference.source
        assert difference.effect
    assert all("section" in reason for reason in UNDECIDED.values())


def test_first_version_uses_the_maps_where_they_were_fitted() -> None:
    for name in ("v1", "corrected"):
        recipe = make_recipe(name, retain_coef=5, remove_coef=5)
        assert recipe.blocks == (4, 9, 14, 19, 24, 29)
        assert all(block == fitted for block, fitted in recipe.map_of.items())


def test_second_version_is_one_block_late() -> None:
    recipe = make_recipe("v2", retain_coef=5, remove_coef=5)
    assert recipe.blocks == (5, 10, 15, 20, 25, 30)
    assert recipe.map_of == {block: block - 1 for block in recipe.blocks}


def test_adapters_reach_the_deepest_layer_and_no_further() -> None:
    recipe = Recipe(5, 5)
    assert list(recipe.lora_blocks) == list(range(31))
    assert recipe.lora_scale == 1.0
    assert Recipe(5, 5, lora_rank=8).lora_scale == 2.0
    assert Recipe(5, 5, lora_rank=64).lora_scale == 0.25


def test_epoch_sweep_trains_on_a_quarter() -> None:
    sweep = make_recipe("epoch-sweep", retain_coef=5, remove_coef=8, epochs=10)
    assert sweep.effective_batch == 8
    assert sweep.steps.accumulation == 2
    assert sweep.steps.optimizer_steps == 320
    assert not sweep.affine
    assert make_recipe("v1", retain_coef=5, remove_coef=8).effective_batch == 32


def test_what_makes_a_preset_can_be_scaled_and_not_undone() -> None:
    scaled = make_recipe("v2-muon-bug", retain_coef=0, remove_coef=5, muon_routing="below-200-rows")
    assert scaled.muon_routing == "below-200-rows"
    with pytest.raises(ValueError, match="affine is what makes the preset 'epoch-sweep'"):
        make_recipe("epoch-sweep", retain_coef=5, remove_coef=5, affine=True)
    with pytest.raises(ValueError, match="unknown preset"):
        make_recipe("v3", retain_coef=5, remove_coef=5)
    with pytest.raises(ValueError, match="unknown setting 'rank'"):
        make_recipe("v1", retain_coef=5, remove_coef=5, rank=8)


def test_of_several_settings_the_first_by_name_is_refused() -> None:
    unknown = dict.fromkeys("hgfedcbaijklmnop", 1)
    with pytest.raises(ValueError, match="unknown setting 'a'"):
        make_recipe("v1", retain_coef=5, remove_coef=5, **unknown)
    undone = {name: getattr(Recipe(5, 5), name) for name in PRESETS["epoch-sweep"]}
    with pytest.raises(ValueError, match=f"{min(undone)} is what makes the preset"):
        make_recipe("epoch-sweep", retain_coef=5, remove_coef=5, **undone)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"fit_at": "after"}, "unknown fit_at"),
        ({"retain_loss": "mse"}, "unknown retain_loss"),
        ({"muon_routing": "by-size"}, "unknown routing"),
        ({"optimizer": "sgd"}, "unknown optimizer"),
        ({"affine": "False"}, "write true or false"),
        ({"layers": (5, 5)}, "rising order"),
        ({"layers": ()}, "rising order"),
        ({"lora_rank": 0}, "set full_rank"),
        ({"examples": 1000}, "do not fill"),
        ({"learning_rate": 0.0}, "learning rate"),
        ({"coefficient_schedule": "cosine"}, "unknown coefficient_schedule"),
        ({"on_divergence": "ignore"}, "unknown on_divergence"),
    ],
)
def test_what_is_no_recipe_is_refused(settings: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Recipe(5, 5, **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not negative"):
        Recipe(-1, 5)


def test_switches_are_parsed() -> None:
    assert parse_bool("False") is False
    assert parse_bool("true") is True
    assert parse_bool(True) is True
    for wrong in ("0", 1, None, "no"):
        with pytest.raises(ValueError, match="no switch"):
            parse_bool(wrong)


def test_the_epoch_sweep_with_a_map_differs_in_the_map_alone() -> None:
    with_map, without = (
        make_recipe(name, retain_coef=5, remove_coef=8)
        for name in ("epoch-sweep-with-map", "epoch-sweep")
    )
    assert with_map == dataclasses.replace(without, affine=True)
    assert with_map.effective_batch == 8
