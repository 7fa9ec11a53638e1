"""What each axis of an instance becomes in its cells."""

from __future__ import annotations

from typing import Any

import pytest

from kit.results.axes import Axes, Origin, roles_of

VICTIMS = ({"id": "base", "group": "plain"}, {"id": "guarded", "group": "guarded"})
ROLES = {"victim": "group", "adversary": "setting", "seed": "replicate"}


def test_axes_without_declared_roles_are_a_replicate_and_settings() -> None:
    assert roles_of(["pair", "rate", "layout"]) == {
        "pair": "replicate",
        "rate": "setting",
        "layout": "setting",
    }


def test_an_axis_that_the_manifest_leaves_out_shows_as_a_setting() -> None:
    assert roles_of(["pair", "rate"], {"rate": "replicate"}) == {
        "pair": "setting",
        "rate": "replicate",
    }


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown axis role 'seed'"):
        roles_of(["pair"], {"pair": "seed"})


def test_a_matrix_of_models_adversaries_and_seeds() -> None:
    instances: list[dict[str, Any]] = [
        {"victim": victim, "adversary": {"id": adversary}, "seed": seed}
        for victim in VICTIMS
        for adversary in ("lora", "full")
        for seed in (0, 1, 2)
    ]
    axes = Axes(instances, ROLES)
    origins = [axes.origin(f"s{i}", one) for i, one in enumerate(instances)]
    assert len({(one.group, one.settings) for one in origins}) == 4
    assert {one.replicate for one in origins} == {"0", "1", "2"}
    assert origins[0] == Origin("plain", "0", ("lora",), "s0")
    assert {one.group for one in origins} == {"plain", "guarded"}


def test_a_group_axis_of_plain_values_names_the_group() -> None:
    one = {"victim": "base", "seed": 0}
    assert Axes([one], ROLES).origin("s", one).group == "base"


def test_the_group_is_a_field_of_any_record_axis() -> None:
    axes = {"pair": {"id": "p1", "group": "near", "seed": 7}, "rate": 0.1}
    assert Axes([axes]).origin("s", axes) == Origin("near", "p1/7", (), "s")
    attack = {"adversary": {"id": "lora", "group": "tuning"}, "seed": 1}
    roles = {"adversary": "setting", "seed": "replicate"}
    assert Axes([attack], roles).origin("s", attack).group == "tuning"


def test_without_a_group_all_is_the_group() -> None:
    assert Axes([{"seed": 3}]).origin("s", {"seed": 3}) == Origin("all", "3", (), "s")
    assert Axes([{}]).origin("s", {}) == Origin("all", "", (), "s")


def test_only_settings_with_several_values_show() -> None:
    made = [{"seed": 0, "rate": rate, "layout": {"id": "front"}} for rate in (0.1, 0.2)]
    axes = Axes([*made, {"seed": 0}])
    assert axes.varied == {"rate"}
    assert axes.origin("s", made[1]).settings == ("0.2",)
    assert axes.origin("s", {"seed": 0}).settings == ()


def test_several_replicate_axes_are_one_replicate() -> None:
    one = {"pair": {"id": "p1", "seed": 7}, "seed": 3}
    roles = {"pair": "replicate", "seed": "replicate"}
    assert Axes([one], roles).origin("s", one).replicate == "p1/7/3"
