"""Learning-rate schedules."""

from __future__ import annotations

import pytest

from kit.train.schedules import SCHEDULES, learning_rate


def rates(schedule, steps=10, warmup=0):
    return [
        learning_rate(i, peak=0.1, steps=steps, schedule=schedule, warmup=warmup)
        for i in range(steps)
    ]


def test_constant():
    assert rates("constant") == [0.1] * 10


def test_linear_falls_to_one_step_above_zero():
    assert rates("linear") == pytest.approx([0.1 * (1 - i / 10) for i in range(10)])


def test_cosine_is_half_way_in_the_middle():
    values = rates("cosine")
    assert values[0] == 0.1
    assert values[5] == pytest.approx(0.05)
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_rises_linearly_to_the_peak(schedule):
    values = rates(schedule, steps=12, warmup=4)
    assert values[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert values[4] == pytest.approx(0.1)


def test_unknown_schedule_lists_the_known_ones():
    with pytest.raises(ValueError, match="constant, linear, cosine"):
        rates("exponential")


def test_a_warm_up_as_long_as_the_run_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        rates("constant", steps=3, warmup=3)
