"""One lock a key, so that two runs on one store never do the same step twice at once.

``flock`` is released by the kernel when its holder dies, however it dies; a stale lock cannot
exist. The file says who holds it, for the message to those who wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from kit import jsonfile
from kit.errors import InvalidInput

POLL_SECONDS = 0.2


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _is_current(handle: int, path: Path) -> bool:
    """Whether the open file is still the one at ``path`` (a former holder may have removed it)."""
    try:
        return os.fstat(handle).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _try(path: Path) -> int | None:
    """The locked handle, or ``None`` when somebody else holds it."""
    while True:
        handle = _open(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        if _is_current(handle, path):
            return handle
        os.close(handle)


def holder(path: Path) -> str:
    """Who holds the lock, in words."""
    try:
        who = jsonfile.read(path, dict[str, object])
        return f"process {who['pid']} on {who['host']} since {who['since']}"
    except (InvalidInput, KeyError):
        return "another process"


@contextlib.contextmanager
def key_lock(path: Path, *, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock at ``path``.

    Args:
        path: The lock file; made here, removed afterwards.
        waiting: Called once with the holder's description when the lock is taken.
    """
    while (handle := _try(path)) is None:
        if waiting is not None:
            waiting(holder(path))
            waiting = None
        time.sleep(POLL_SECONDS)
    try:
        record = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(record).encode(), 0)
        yield
    finally:
        # Removed while still held: whoever opened it meanwhile notices and opens a new one.
        path.unlink(missing_ok=True)
        os.close(handle)


@contextlib.contextmanager
def shared_lock(path: Path) -> Iterator[None]:
    """Hold the lock at ``path`` beside others that share it; nobody holds it alone meanwhile."""
    while True:
        handle = _open(path)
        fcntl.flock(handle, fcntl.LOCK_SH)
        if _is_current(handle, path):
            break
        os.close(handle)
    try:
        yield
    finally:
        os.close(handle)
        with lock_if_free(path):  # the last one to leave removes the file
            pass


@contextlib.contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock if nobody else does; yields whether it is held."""
    handle = _try(path)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            path.unlink(missing_ok=True)
            os.close(handle)
