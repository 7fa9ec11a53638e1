"""Checkpoints that nobody went on from: which, how large, how old, and who is at them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kit.engine import inventory as module
from kit.engine.inventory import checkpoints, removal
from kit.engine.store import Store

DAY = 86400


def keep(home: Path, key: str, days: float) -> Path:
    folder = home / "scratch" / key
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "state").write_bytes(b"x" * 5000)
    for path in (folder / "deep" / "state", folder / "deep", folder):
        os.utime(path, (time.time() - days * DAY,) * 2)
    return folder


def test_nothing(tmp_path: Path) -> None:
    assert checkpoints(tmp_path) == []


def test_oldest_first_with_sizes(tmp_path: Path) -> None:
    keep(tmp_path, "young", 1)
    keep(tmp_path, "old", 30)
    (tmp_path / "scratch" / "file").touch()
    (tmp_path / "scratch" / "link").symlink_to(tmp_path)
    old, young = checkpoints(tmp_path)
    assert (old.path.name, old.abandoned) == ("old", True)
    assert (young.path.name, young.abandoned) == ("young", False)
    assert old.days == pytest.approx(30, abs=0.1)
    assert old.size >= 5000


def test_the_newest_file_counts_and_not_the_folder(tmp_path: Path) -> None:
    folder = keep(tmp_path, "key", 30)
    (folder / "deep" / "state").touch()
    (one,) = checkpoints(tmp_path)
    assert not one.abandoned


def test_a_running_step_is_never_abandoned(tmp_path: Path) -> None:
    keep(tmp_path, "key", 30)
    store = Store(tmp_path)
    with store.lock("key"):
        (held,) = checkpoints(tmp_path)
    assert held.running
    assert not held.abandoned
    (free,) = checkpoints(tmp_path)
    assert not free.running
    assert not (tmp_path / "locks" / "key").exists(), "looking leaves nothing behind"


def test_a_lock_that_cannot_be_opened_counts_as_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError

    keep(tmp_path, "key", 30)
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "key").touch()
    monkeypatch.setattr(module, "lock_if_free", refuse)
    (one,) = checkpoints(tmp_path)
    assert one.running


def test_the_command_quotes(tmp_path: Path) -> None:
    keep(tmp_path / "a b", "key", 30)
    assert removal(checkpoints(tmp_path / "a b")) == f"rm -rf '{tmp_path}/a b/scratch/key'"
