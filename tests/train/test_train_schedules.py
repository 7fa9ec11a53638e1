"""Learning-rate schedules."""

from __future__ import annotations

import pytest
import torch
import transformers

from kit.train.schedules import COSINE, RESTARTS, Schedule, learning_rate


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


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
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


def library_rates(make, steps, peak=0.1):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = make(optimizer)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("linear", transformers.get_linear_schedule_with_warmup),
        ("cosine", transformers.get_cosine_schedule_with_warmup),
    ],
)
def test_decays_equal_those_of_transformers(name, make):
    """Its warm-up begins at a rate of 0, ours at the first step's share."""
    expected = library_rates(lambda o: make(o, 3, 20), 20)
    assert rates(name, steps=20, warmup=3)[3:] == pytest.approx(expected[3:])


def test_restarts_equal_those_of_torch():
    make = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts
    expected = library_rates(lambda o: make(o, T_0=4, T_mult=2, eta_min=0.01), 30)
    schedule = Schedule(RESTARTS, period=4, growth=2, floor=0.1)
    ours = [schedule.rate(step, peak=0.1, steps=30) for step in range(30)]
    assert ours == pytest.approx(expected)
    later = Schedule(RESTARTS, period=4, growth=2, floor=0.1, warmup=2)
    assert [later.rate(s, peak=0.1, steps=30) for s in range(2, 30)] == ours[:28]


def test_a_floor_is_where_the_decay_ends():
    schedule = Schedule(COSINE, floor=0.05)
    assert schedule.rate(100, peak=2.0, steps=100) == pytest.approx(0.1)
    assert schedule.rate(0, peak=2.0, steps=100) == 2.0


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "restarts"},
        {"name": "cosine", "period": 5},
        {"floor": 1.5},
        {"warmup": -1},
        {"growth": 0},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings):
    with pytest.raises(ValueError, match="schedule"):
        Schedule(**settings)
