"""Which items a run consumes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kit.methods.defensive_tokens.schedule import make_schedule, steps_per_epoch


def test_a_short_run_consumes_a_small_part():
    """200 x 16 of 51,760 items (docs/methods/defensive_tokens.md, 6), each at most once."""
    schedule = make_schedule(51_760, steps=200, batch=16, seed=42)
    consumed = schedule.consumed()
    assert len(consumed) == len(schedule.order) == len(set(consumed)) == 3200
    assert 0 <= min(consumed) < max(consumed) < 51_760
    assert f"{len(consumed) / 51_760:.1%}" == "6.2%"


@given(
    items=st.integers(1, 60),
    batch=st.integers(1, 12),
    steps=st.integers(1, 30),
    seed=st.integers(0, 9),
)
def test_epochs_are_permutations_without_their_incomplete_end(items, batch, steps, seed):
    if items < batch:
        with pytest.raises(ValueError, match="do not fill"):
            make_schedule(items, steps=steps, batch=batch, seed=seed)
        return
    schedule = make_schedule(items, steps=steps, batch=batch, seed=seed)
    assert len(schedule.order) == steps * batch
    per_epoch = steps_per_epoch(items, batch) * batch
    for first in range(0, len(schedule.order), per_epoch):
        epoch = schedule.order[first : first + per_epoch]
        assert len(set(epoch)) == len(epoch)
    assert set(schedule.order) <= set(range(items))
    steps_joined = [i for step in range(steps) for i in schedule.step(step)]
    assert tuple(steps_joined) == schedule.order


def test_a_longer_run_begins_like_a_shorter_one():
    short = make_schedule(100, steps=5, batch=4, seed=1)
    long = make_schedule(100, steps=50, batch=4, seed=1)
    assert long.order[:20] == short.order


def test_seeds_matter_and_the_stream_is_frozen():
    assert make_schedule(8, steps=2, batch=4, seed=0).order == (6, 2, 1, 7, 3, 0, 5, 4)
    assert make_schedule(8, steps=2, batch=4, seed=1).order != (6, 2, 1, 7, 3, 0, 5, 4)


def test_the_order_of_the_follow_up():
    """First ids of its training: reference page, differential run against the public code."""
    order = make_schedule(51_760, steps=200, batch=16, seed=42, order="data-loader").order
    assert order[:4] == (27728, 19259, 8547, 28701)
    assert len(set(order)) == 3200
    torch.manual_seed(42)
    for _ in range(2):  # the loader's base seed is drawn first and not used for the permutation
        seed = int(torch.empty((), dtype=torch.int64).random_())
    by_hand = torch.randperm(51_760, generator=torch.Generator().manual_seed(seed))
    assert order == tuple(by_hand[:3200].tolist())
    own = make_schedule(51_760, steps=200, batch=16, seed=42).order
    assert len(set(order) & set(own)) == 211


def test_later_epochs_of_a_data_loader_and_the_callers_stream():
    torch.manual_seed(3)
    loader = torch.utils.data.DataLoader(range(10), batch_size=3, shuffle=True, drop_last=True)
    real = [int(i) for _ in range(4) for ids in loader for i in ids]
    torch.manual_seed(9)
    before = torch.get_rng_state()
    order = make_schedule(10, steps=11, batch=3, seed=3, order="data-loader").order
    assert order == tuple(real[:33])
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="unknown order 'shuffled'"):
        make_schedule(8, steps=1, batch=4, seed=0, order="shuffled")


def test_steps_outside_the_schedule_are_refused():
    schedule = make_schedule(8, steps=2, batch=4, seed=0)
    for step in (-1, 2):
        with pytest.raises(ValueError, match=f"step {step}"):
            schedule.step(step)


@pytest.mark.parametrize(("steps", "batch"), [(0, 1), (1, 0)])
def test_an_empty_schedule_is_refused(steps, batch):
    with pytest.raises(ValueError, match="at least one step"):
        make_schedule(8, steps=steps, batch=batch, seed=0)


def test_published_epoch_lengths():
    assert steps_per_epoch(51_760, 128) == 404
    assert steps_per_epoch(51_760, 16) == 3235
