"""Checkpoints on disk: a killed training continues with the same bits and the same losses."""

from __future__ import annotations

from pathlib import Path

import torch

from kit.train.checkpoints import Checkpoints
from kit.train.prefix_tuning import PrefixState


def _state(step: int) -> PrefixState:
    return PrefixState(step, torch.full((2, 3), float(step)), torch.ones(2, 3), torch.ones(2, 3))


def test_without_states_training_starts_from_the_initial_prefix(tmp_path: Path) -> None:
    state = Checkpoints(tmp_path).resume(torch.arange(6.0).reshape(2, 3))
    assert state.step == 0
    assert state.prefix.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert not state.exp_avg.any()


def test_resume_takes_the_newest_state_and_its_losses(tmp_path: Path) -> None:
    first = Checkpoints(tmp_path)
    first.resume(torch.zeros(2, 3))
    for step in (1, 2, 3):
        first.on_step(step, step / 10)
        if step == 2:
            first.save(_state(2))
    second = Checkpoints(tmp_path)
    state = second.resume(torch.zeros(2, 3))
    assert state.step == 2
    assert torch.equal(state.prefix, torch.full((2, 3), 2.0))
    second.on_step(3, 0.3)
    assert second.losses() == [0.1, 0.2, 0.3]
    assert sorted(second.prefixes()) == [2]


def test_losses_past_the_newest_state_are_done_again(tmp_path: Path) -> None:
    """A kill between writing losses and writing their state leaves losses that do not count."""
    first = Checkpoints(tmp_path)
    first.resume(torch.zeros(2, 3))
    first.on_step(1, 1.0)
    first.save(_state(1))
    with (tmp_path / "losses.jsonl").open("a") as file:
        file.write("[2, 99.0]\n[3, 9")
    second = Checkpoints(tmp_path)
    second.resume(torch.zeros(2, 3))
    second.on_step(2, 0.5)
    assert second.losses() == [1.0, 0.5]


def test_a_half_written_state_is_no_state(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    (tmp_path / "state.tmp").write_bytes(b"half")
    assert kept.resume(torch.zeros(2, 3)).step == 0
