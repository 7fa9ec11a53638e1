"""Which adversary is drawn, when it turns, and what it draws again after a resume."""

from __future__ import annotations

from collections import Counter

import pytest
from scipy import stats

from kit.methods.tar.adversaries import AdversaryType, check_data, draw_adversary
from kit.methods.tar.presets import preset

TYPES = (
    AdversaryType("forget", "f", share=2.0),
    AdversaryType("turn", "f", share=1.0, first="r"),
)


def draws(count, **kwargs):
    return [
        draw_adversary(TYPES, (0.1, 0.2), inner_steps=64, seed=3, outer_step=i, **kwargs)
        for i in range(count)
    ]


def test_switch_is_the_number_of_steps_on_the_first_data():
    for adversary in draws(50):
        data = [adversary.data(s) for s in range(64)]
        assert data.count("r") == adversary.switch
        assert data == sorted(data, reverse=True)  # all r, then all f
        if adversary.type.first is None:
            assert adversary.switch == 0
    turns = [a.switch for a in draws(50) if a.type.first]
    assert len(set(turns)) > 5


def test_switch_follows_the_beta_distribution():
    turns = [
        draw_adversary(TYPES[1:], (1.0,), inner_steps=10**6, seed=0, outer_step=i).switch / 10**6
        for i in range(2000)
    ]
    assert stats.kstest(turns, stats.beta(6, 3).cdf).pvalue > 1e-3
    assert stats.kstest(turns, stats.beta(3, 6).cdf).pvalue < 1e-6


def test_shares_rates_and_optimizers_are_drawn_as_asked():
    made = draws(3000, optimizers=("adamw", "sgd"))
    types = Counter(a.type.name for a in made)
    assert stats.binomtest(types["forget"], 3000, 2 / 3).pvalue > 1e-3
    for counted in (
        Counter(a.learning_rate for a in made),
        Counter(a.optimizer for a in made),
    ):
        assert stats.binomtest(min(counted.values()), 3000, 1 / 2).pvalue > 1e-3
        assert len(counted) == 2


def test_a_draw_depends_on_seed_step_and_task_only():
    assert draws(20) == draws(20)
    other_task = draws(20, task=1)
    assert draws(20) != other_task
    kwargs = {"inner_steps": 64, "outer_step": 5}
    first = [draw_adversary(TYPES, (0.1, 0.2), seed=s, **kwargs) for s in range(20)]
    assert len({(a.type.name, a.learning_rate, a.switch) for a in first}) > 5


def test_adversaries_without_data_are_refused():
    with pytest.raises(ValueError, match="'turn' trains on 'r', which is not among the data: f"):
        check_data(TYPES, ["f"])
    check_data(TYPES, ["f", "r"])
    bio = preset("paper", "bio").adversaries
    with pytest.raises(ValueError, match="adversary-retain"):
        check_data(bio, ["pile-bio-forget", "camel-bio-forget"])


def test_nothing_to_draw_from_is_refused():
    with pytest.raises(ValueError, match="needs a type"):
        draw_adversary((), (0.1,), inner_steps=4, seed=0, outer_step=0)
    with pytest.raises(ValueError, match="shares"):
        draw_adversary(
            [AdversaryType("a", "f", share=0.0)], (0.1,), inner_steps=4, seed=0, outer_step=0
        )
