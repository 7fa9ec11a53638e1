"""Settings of TAR and draws of its adversaries, on both sides of every limit."""

from __future__ import annotations

from typing import Any

import pytest

from kit.methods.tar.adversaries import Adversary, AdversaryType, check_data, draw_adversary
from kit.methods.tar.presets import preset
from tests.refused import refused

COUNTS = (
    "outer_steps", "adversaries_a_step", "forget_batch", "inner_retain_batch", "held_out_batch",
    "retain_batch",
)  # fmt: skip
NAMED = {
    "objective": "dpo", "distance": "norm", "layers": "hidden-states", "entropy_padding": "masked",
    "representation_padding": "included", "held_out_split": "adversary", "retain_split": "test",
    "special_token_labels": "kept",
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_of_everything_there_is_one_at_least(name: str) -> None:
    for value, wrong in ((0, True), (1, False)):
        refused(
            lambda v=value: preset("paper", "bio", **{name: v}), wrong, f"{name} is 0; at least 1"
        )


@pytest.mark.parametrize(("name", "known"), NAMED.items())
def test_names_that_are_known(name: str, known: str) -> None:
    assert getattr(preset("paper", "bio", **{name: known}), name) == known
    with pytest.raises(ValueError, match=f"{name} is 'x'; known: .*{known}"):
        preset("paper", "bio", **{name: "x"})


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [({"adversary_learning_rates": (1e-9,)}, False), ({"adversary_learning_rates": (0.1, 0)}, True),
     ({"adversary_learning_rates": (0.1, -1.0)}, True),
     ({"adversary_learning_rates": (float("inf"),)}, True),
     ({"adversary_learning_rates": ()}, True), ({"inner_optimizers": ()}, True),
     ({"adversaries": ()}, True)],
)  # fmt: skip
def test_an_attack_needs_a_rate_above_0_and_an_optimizer(
    changes: dict[str, Any], wrong: bool
) -> None:
    refused(lambda: preset("paper", "bio", **changes), wrong, "learning rate")


def types(*shares: float) -> list[AdversaryType]:
    return [AdversaryType(f"t{n}", "f", share=share) for n, share in enumerate(shares)]


@pytest.mark.parametrize(
    ("shares", "wrong"),
    [((1.0,), False), ((0.0, 0.0), True), ((0.0, 1e-9), False), ((2.0, -0.5), True), ((), True)],
)
def test_shares_are_not_negative_and_not_all_zero(shares: Any, wrong: bool) -> None:
    def draw() -> Adversary:
        return draw_adversary(types(*shares), [0.1], inner_steps=4, seed=0, outer_step=0)

    refused(draw, wrong, "shares|needs a type")
    if not wrong:
        assert draw().type.share > 0
    for rates, optimizers in (([], ["a"]), ([0.1], [])):
        with pytest.raises(ValueError, match="needs a type, a learning rate and an optimizer"):
            draw_adversary(
                types(1.0), rates, inner_steps=4, seed=0, outer_step=0, optimizers=optimizers
            )


def test_a_turn_comes_after_its_steps_and_never_without_other_data() -> None:
    turning = AdversaryType("turn", "f", first="r")
    made = Adversary(turning, 0.1, "adamw", 2)
    assert [made.data(step) for step in range(4)] == ["r", "r", "f", "f"]
    assert Adversary(types(1.0)[0], 0.1, "adamw", 2).data(0) == "f"
    for step in range(20):
        how: dict[str, Any] = {"inner_steps": 8, "seed": 1, "outer_step": step}
        plain = draw_adversary(types(1.0), [0.1], **how)
        assert plain.switch == 0
        late = draw_adversary([turning], [0.1], switch=(1e6, 1e-3), **how)
        early = draw_adversary([turning], [0.1], switch=(1e-3, 1e6), **how)
        assert (late.switch, early.switch) in {(7, 0), (8, 0)}
        first = draw_adversary([turning], [0.1], **how)
        assert first == draw_adversary([turning], [0.1], task=0, **how)
    draws = {draw_adversary([turning], [0.1], inner_steps=10**6, seed=0, outer_step=0, task=task)
             .switch for task in range(5)}  # fmt: skip
    assert len(draws) == 5


def test_data_that_nobody_has_are_named_in_order() -> None:
    turning = [AdversaryType("turn", "f", first="r")]
    check_data(turning, ["r", "f", "x"])
    with pytest.raises(ValueError, match=r"'turn' trains on 'r', .*: a, b, c, f"):
        check_data(turning, ["f", "c", "a", "b"])
    with pytest.raises(ValueError, match=r"trains on 'f', .*: r"):
        check_data(turning, ["r"])
    with pytest.raises(ValueError, match="none"):
        check_data(turning, [])
