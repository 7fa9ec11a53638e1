"""``events.jsonl``: the only log of a run.

One JSON object a line. A line is written by a single ``write`` on a file opened for appending, so
lines of several processes do not mix; a line cut short by a crash is skipped on reading.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from kit import jsonfile
from kit.errors import InvalidInput

Event = dict[str, Any]
"""``time``, ``event``, usually ``step``, and fields."""

Emit = Callable[[Event], None]
"""Where events go: a file, a pipe, a renderer."""

STEP_ENDS = ("step-done", "step-cached", "step-failed", "step-stopped")


def utc_now() -> str:
    """Now, as ISO 8601 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc_after(started: str, seconds: float) -> str:
    """The time ``seconds`` after ``started``: an end that a clock set back cannot put before it."""
    ended = datetime.fromisoformat(started) + timedelta(seconds=seconds)
    return ended.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def event(name: str, step: str = "", /, **fields: Any) -> Event:
    """Make an event, stamped now."""
    made: Event = {"time": utc_now(), "event": name}
    if step:
        made["step"] = step
    made.update(fields)
    return made


def encode(item: Event) -> bytes:
    """One line. Numbers that JSON cannot carry (NaN, infinity) become ``null``."""
    return msgspec.json.encode(item) + b"\n"


class EventLog:
    """Appends to an event file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        self._handle = os.open(path, flags, 0o644)
        size = os.fstat(self._handle).st_size
        if size and os.pread(self._handle, 1, size - 1) != b"\n":
            os.write(self._handle, b"\n")  # close a line that a crash cut short

    def __call__(self, item: Event) -> None:
        line = encode(item)
        written = os.write(self._handle, line)
        while written < len(line):
            written += os.write(self._handle, line[written:])

    def close(self) -> None:
        """Flush to disk and close."""
        os.fsync(self._handle)
        os.close(self._handle)


class EventTail:
    """What another process appends to an event file, as it comes.

    Args:
        path: The file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._offset = path, 0

    def read(self) -> list[Event]:
        """The events of all whole lines since the last call, without damaged ones."""
        with contextlib.suppress(FileNotFoundError):
            # Opened each time: that is what makes a network file system look again.
            with self.path.open("rb") as handle:
                handle.seek(self._offset)
                text = handle.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._offset += len(whole)
            return list(_events(whole.splitlines(), self.path))
        return []


def read_events(path: Path) -> Iterator[Event]:
    """The events of a file, in order, without damaged lines."""
    with path.open("rb") as handle:
        yield from _events(handle, path)


def _events(lines: Iterable[bytes], path: Path) -> Iterator[Event]:
    for line in lines:
        with contextlib.suppress(InvalidInput):
            yield jsonfile.decode(line, Event, where=str(path))
