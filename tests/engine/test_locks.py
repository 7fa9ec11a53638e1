"""Locks: one holder at a time, and none that outlives its process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kit.engine import locks
from kit.engine.locks import holder, key_lock, lock_if_free, shared_lock

HOLD = """
import sys, time
from pathlib import Path
from kit.engine.locks import key_lock
with key_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until it is killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_the_file_goes_with_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "k"
    with key_lock(path):
        assert "process" in holder(path)
    assert not path.exists()


def test_waiting_says_for_whom_and_a_killed_holder_lets_go(tmp_path: Path) -> None:
    path, told = tmp_path / "k", []
    with hold(path) as child:
        with lock_if_free(path) as free:
            assert not free
        started = time.monotonic()
        threading.Timer(0.5, child.kill).start()
        with key_lock(path, waiting=told.append):
            assert time.monotonic() - started > 0.3
    assert len(told) == 1
    assert f"process {child.pid} on " in told[0]


def test_many_takers_never_overlap(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "k", [0], [0]

    def take() -> None:
        for _ in range(20):
            with key_lock(path):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.0005)
                inside[0] -= 1

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_unreadable_holder(tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.write_text("not json")
    assert holder(path) == "another process"
    assert holder(tmp_path / "gone") == "another process"


def handles() -> int:
    """Open files of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_file_that_is_removed_meanwhile_is_not_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opened what another holder then removed opens anew, and leaves no handle behind."""
    path, real, opened = tmp_path / "k", locks._open, []

    def open_(asked: Path) -> int:
        handle = real(asked)
        opened.append(handle)
        if len(opened) == 1:
            asked.unlink()
        return handle

    before = handles()
    monkeypatch.setattr(locks, "_open", open_)
    for take in (key_lock, shared_lock):
        opened.clear()
        with take(path):  # type: ignore[operator]
            assert path.exists()
            assert handles() == before + 1
        assert len(opened) >= 2
        assert handles() == before
        assert not path.exists()


def test_who_shares_a_lock_keeps_others_out_and_each_other_in(tmp_path: Path) -> None:
    path = tmp_path / "k"
    before = handles()
    with shared_lock(path):
        with shared_lock(path), lock_if_free(path) as free:
            assert not free
        with lock_if_free(path) as free:
            assert not free
    with lock_if_free(path) as free:
        assert free
    assert handles() == before


@pytest.mark.parametrize("text", ["", "{}", '{"pid": 1}', "[]"])
def test_a_holder_of_whom_nothing_is_written_is_another_process(tmp_path: Path, text: str) -> None:
    (tmp_path / "k").write_text(text)
    assert holder(tmp_path / "k") == "another process"
