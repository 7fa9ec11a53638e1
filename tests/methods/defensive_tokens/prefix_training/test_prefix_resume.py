"""Same seed, same bits; stopping and going on, same bits; divergence stops cleanly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.prefix_training.state import PrefixState, start
from kit.methods.defensive_tokens.prefix_training.tuning import train_prefix
from kit.train.errors import HIGHEST_LOSS, TrainingDiverged, divergence
from tests.lm.tiny_world import tiny_llama
from tests.methods.defensive_tokens.prefix_training.prefix_cases import (
    V,
    examples,
    initial,
    steps_of,
)

CONFIG = PrefixTraining(
    steps=9,
    micro_batch=2,
    accumulation=2,
    learning_rate=0.1,
    schedule="linear",
    warmup=2,
    checkpoint_steps=(0, 4, 9),
)
POOL = examples(36)


def train(state, config=CONFIG, model=None, on_checkpoint=None):
    return train_prefix(
        model or tiny_llama(V),
        state,
        steps_of(POOL, config.batch),
        config,
        pad_id=0,
        on_checkpoint=on_checkpoint,
    )


def assert_same(a: PrefixState, b: PrefixState):
    assert a.step == b.step
    assert torch.equal(a.prefix, b.prefix)
    assert torch.equal(a.exp_avg, b.exp_avg)
    assert torch.equal(a.exp_avg_sq, b.exp_avg_sq)


def test_two_runs_are_bit_equal():
    first, second = train(start(initial())), train(start(initial()))
    assert_same(first.state, second.state)
    assert first.losses == second.losses


def test_another_start_gives_another_result():
    first, second = train(start(initial(0))), train(start(initial(1)))
    assert not torch.equal(first.state.prefix, second.state.prefix)


@pytest.mark.parametrize("stop", [0, 4])
def test_going_on_from_a_checkpoint_is_bit_equal(stop, tmp_path):
    kept = {}
    whole = train(start(initial()), on_checkpoint=lambda state: kept.setdefault(state.step, state))
    # Through a file, as an interrupted process would.
    save_file(kept[stop].tensors(), tmp_path / "state.safetensors")
    restored = PrefixState.from_tensors(load_file(tmp_path / "state.safetensors"))
    assert_same(restored, kept[stop])
    rest = train(restored)
    assert_same(rest.state, whole.state)
    assert rest.losses == whole.losses[stop:]


def test_a_finished_state_is_returned_as_it_is():
    whole = train(start(initial()))
    again = train(whole.state)
    assert again.losses == []
    assert_same(again.state, whole.state)


def test_checkpoints_do_not_change_the_run():
    plain = train(start(initial()), replace(CONFIG, checkpoint_steps=()))
    assert_same(plain.state, train(start(initial())).state)


def test_a_checkpoint_is_a_copy():
    run = train(start(initial()))
    assert not torch.equal(run.checkpoints[0], run.checkpoints[9])


def broken_model():
    """Finite for a while: the loss is NaN as soon as token 63 is in a batch."""
    model = tiny_llama(V)
    with torch.no_grad():
        model.get_input_embeddings().weight[63] = float("nan")
    return model


def test_a_nan_loss_names_step_examples_and_last_checkpoint():
    clean = [e for e in POOL if 63 not in e.ids]
    poisoned = replace(clean[1], id="poison", ids=(*clean[1].ids[:-1], 63, clean[1].ids[-1]))
    pool = [*clean[:12], clean[12], poisoned, *clean[14:16]]
    seen = []
    with pytest.raises(TrainingDiverged) as caught:
        train_prefix(
            broken_model(),
            start(initial()),
            steps_of(pool, 4),
            replace(CONFIG, steps=4, warmup=0, checkpoint_steps=(0, 2, 4)),
            pad_id=0,
            on_checkpoint=lambda state: seen.append(state.step),
        )
    assert caught.value.step == 3
    assert "poison" in caught.value.batch_ids
    assert caught.value.last_good_checkpoint == 2
    assert "step 3" in str(caught.value)
    assert seen == [0, 2], "nothing is written after the loss went bad"


def test_without_checkpoints_the_message_says_none():
    error = TrainingDiverged(0, ["a", "b", "c", "d", "e"], None)
    assert "a, b, c, d, ..." in str(error)
    assert str(error).endswith("checkpoint: none")


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (0.0, ""),
        (HIGHEST_LOSS, ""),
        (HIGHEST_LOSS + 1, "has a loss of 101 nats a token, above 100"),
        (float("nan"), "not finite (nan)"),
        (float("inf"), "not finite (inf)"),
    ],
)
def test_which_losses_are_divergence(loss, words):
    assert words in divergence(loss)
    assert bool(divergence(loss)) == bool(words)


def test_an_update_that_overflows_is_seen_before_it_is_a_checkpoint():
    """The loss before the last update is fine; without this the broken prefix would be saved."""
    seen, losses = [], []
    with pytest.raises(TrainingDiverged, match="by its update alone") as caught:
        train_prefix(
            tiny_llama(V),
            start(initial()),
            steps_of(POOL, 4),
            replace(CONFIG, steps=1, warmup=0, learning_rate=1e30, checkpoint_steps=(0, 1)),
            pad_id=0,
            on_checkpoint=lambda state: seen.append(state.step),
            on_step=lambda step, loss: losses.append(loss),
        )
    assert (caught.value.step, caught.value.last_good_checkpoint) == (0, 0)
    assert seen == [0]
    assert losses == []


def test_a_loss_beyond_reason_stops_too():
    model = tiny_llama(V)
    with torch.no_grad():
        model.lm_head.weight.mul_(1e5)
    with pytest.raises(TrainingDiverged, match="nats a token, above 100"):
        train_prefix(
            model,
            start(initial()),
            steps_of(POOL, 4),
            replace(CONFIG, steps=1, warmup=0),
            pad_id=0,
        )


class Stop(BaseException):
    """As a worker raises it when it is told to stop."""


@pytest.mark.parametrize("last", [1, 3, 6])
def test_a_stopped_run_keeps_its_last_whole_step(last):
    """The signal comes in the middle of a step; the state is the one before that step."""
    whole = train(start(initial()))
    kept = {}
    pool = steps_of(POOL, CONFIG.batch)

    def stopped(step):
        if step == last:
            raise Stop
        return pool(step)

    with pytest.raises(Stop):
        train_prefix(
            tiny_llama(V),
            start(initial()),
            stopped,
            CONFIG,
            pad_id=0,
            on_checkpoint=lambda state: kept.setdefault(state.step, state),
        )
    assert max(kept) == last
    rest = train(kept[last])
    assert_same(rest.state, whole.state)
    assert rest.losses == whole.losses[last:]


def test_an_error_is_no_reason_for_a_checkpoint():
    kept = []

    def broken(step):
        if step == 3:
            raise ValueError("no")
        return steps_of(POOL, CONFIG.batch)(step)

    with pytest.raises(ValueError, match="no"):
        train_prefix(
            tiny_llama(V),
            start(initial()),
            broken,
            CONFIG,
            pad_id=0,
            on_checkpoint=lambda state: kept.append(state.step),
        )
    assert kept == [0]


def test_states_between_checkpoints_are_kept_and_change_nothing(monkeypatch):
    plain = train(start(initial()))
    monkeypatch.setattr("kit.methods.defensive_tokens.prefix_training.tuning.KEEP_SECONDS", 0.0)
    seen = {}
    kept = train(start(initial()), on_checkpoint=lambda state: seen.setdefault(state.step, state))
    assert_same(kept.state, plain.state)
    assert sorted(seen) == list(range(10))
    assert sorted(kept.checkpoints) == [0, 4, 9]
    assert_same(train(seen[7]).state, plain.state)
