"""Checkpoints on disk: a stopped training continues with the same bits, a damaged one never."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kit.methods.defensive_tokens.prefix_training.checkpoints import Checkpoints
from kit.methods.defensive_tokens.prefix_training.state import PrefixState

INITIAL = torch.zeros(2, 3)


def _state(step: int) -> PrefixState:
    return PrefixState(step, torch.full((2, 3), float(step)), torch.ones(2, 3), torch.ones(2, 3))


def kept(folder: Path, *saved: int, last: int = 0) -> Checkpoints:
    """A training of ``last`` steps (default: the last saved one) with these states."""
    made = Checkpoints(folder)
    made.resume(INITIAL)
    if 0 in saved:
        made.save(_state(0))
    for step in range(1, max(last, *saved) + 1):
        made.on_step(step, step / 10)
        if step in saved:
            made.save(_state(step))
    return made


def path(folder: Path, step: int) -> Path:
    return folder / f"state-{step}.safetensors"


def test_without_states_training_starts_from_the_initial_prefix(tmp_path: Path) -> None:
    state = Checkpoints(tmp_path).resume(torch.arange(6.0).reshape(2, 3))
    assert state.step == 0
    assert state.prefix.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert not state.exp_avg.any()


def test_resume_takes_the_newest_state_and_its_losses(tmp_path: Path) -> None:
    kept(tmp_path, 2, last=3)
    second = Checkpoints(tmp_path)
    state = second.resume(INITIAL)
    assert state.step == 2
    assert torch.equal(state.prefix, torch.full((2, 3), 2.0))
    second.on_step(3, 0.5)  # step 3 is done again: what the first process saw of it is gone
    assert second.losses() == [0.1, 0.2, 0.5]
    assert sorted(second.prefixes()) == [2]


def test_losses_are_kept_to_the_last_bit(tmp_path: Path) -> None:
    first = Checkpoints(tmp_path)
    first.on_step(1, 0.1 + 0.2)
    first.save(_state(1))
    second = Checkpoints(tmp_path)
    second.resume(INITIAL)
    assert second.losses() == [0.1 + 0.2]


def test_a_half_written_state_is_no_state(tmp_path: Path) -> None:
    found = Checkpoints(tmp_path)
    (tmp_path / "state.tmp").write_bytes(b"half")
    assert found.resume(INITIAL).step == 0


def test_truncated_anywhere_the_state_before_is_used(tmp_path: Path) -> None:
    kept(tmp_path, 2, 4)
    whole = path(tmp_path, 4).read_bytes()
    for length in [*range(0, len(whole), 13), len(whole) - 1]:
        path(tmp_path, 4).write_bytes(whole[:length])
        found = Checkpoints(tmp_path)
        assert found.resume(INITIAL).step == 2
        assert found.damaged == ["state-4.safetensors"]
        assert found.losses() == [0.1, 0.2]
        assert not path(tmp_path, 4).exists()


def test_a_flipped_bit_anywhere_never_gives_other_numbers(tmp_path: Path) -> None:
    """In the data, the names, the offsets, the hash itself: the state before is used."""
    kept(tmp_path, 2, 4)
    whole = path(tmp_path, 4).read_bytes()
    for place in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << (place % 8)
        path(tmp_path, 4).write_bytes(spoilt)
        found = Checkpoints(tmp_path)
        state = found.resume(INITIAL)
        if state.step == 4:  # white space of the header, say
            assert {k: v.tolist() for k, v in state.tensors().items()} == {
                k: v.tolist() for k, v in _state(4).tensors().items()
            }
            assert found.losses() == [0.1, 0.2, 0.3, 0.4]
        else:
            assert (state.step, found.losses()) == (2, [0.1, 0.2])


def test_all_damaged_training_starts_again(tmp_path: Path) -> None:
    kept(tmp_path, 0, 2)
    for step in (0, 2):
        path(tmp_path, step).write_bytes(b"\0" * 100)
    found = Checkpoints(tmp_path)
    assert found.resume(INITIAL + 7).prefix.unique().tolist() == [7]
    assert found.losses() == []
    assert found.resume(INITIAL).step == 0, "no crash loop"


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_a_needed_state_that_is_lost_is_made_again(tmp_path: Path, how: str) -> None:
    """Step 4 is whole, but the prefix of step 2 is a result as well."""
    kept(tmp_path, 0, 2, 4)
    if how == "gone":
        path(tmp_path, 2).unlink()
    else:
        path(tmp_path, 2).write_bytes(path(tmp_path, 2).read_bytes()[:-1])
    found = Checkpoints(tmp_path)
    assert found.resume(INITIAL, [0, 2, 4, 6]).step == 0
    assert found.losses() == []


def test_a_state_nobody_needs_may_be_damaged(tmp_path: Path) -> None:
    """Step 3 was saved because a signal came; the run went on to 4."""
    kept(tmp_path, 2, 3, 4)
    path(tmp_path, 3).write_bytes(b"x")
    found = Checkpoints(tmp_path)
    assert found.resume(INITIAL, [2, 4, 6]).step == 4
    assert sorted(found.prefixes()) == [2, 4]


def test_a_stopped_state_behind_the_last_needed_one_is_used(tmp_path: Path) -> None:
    kept(tmp_path, 2, 3)
    assert Checkpoints(tmp_path).resume(INITIAL, [2, 4, 6]).step == 3


def test_another_prefix_or_another_format_is_not_resumed(tmp_path: Path) -> None:
    kept(tmp_path, 2)
    assert Checkpoints(tmp_path).resume(torch.zeros(5, 3)).step == 0
    save_file(_state(2).tensors(), path(tmp_path, 2))  # without losses and hash, as once written
    assert Checkpoints(tmp_path).resume(INITIAL).step == 0


def test_a_state_under_another_step_s_name_is_not_believed(tmp_path: Path) -> None:
    kept(tmp_path, 2)
    path(tmp_path, 2).rename(path(tmp_path, 9))
    assert Checkpoints(tmp_path).resume(INITIAL).step == 0


def test_file_then_rename_then_folder_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after ``save`` returned costs nothing; one before it leaves the old state."""
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def flush(handle: int) -> None:
        place = Path(f"/proc/self/fd/{handle}").resolve()
        order.append(f"fsync {'folder' if place.is_dir() else place.name}")
        if place.is_file():
            assert load_file(place)["step"] == 2, "everything is written before it is flushed"
        fsync(handle)

    def rename(self: Path, target: Path) -> Path:
        order.append(f"rename {self.name} {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(Path, "replace", rename)
    kept(tmp_path, 2)
    assert order == ["fsync state.tmp", "rename state.tmp state-2.safetensors", "fsync folder"]
