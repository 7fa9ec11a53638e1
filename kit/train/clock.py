"""Where the time of a training goes, part by part, without making a GPU wait for the answer."""

from __future__ import annotations

import time
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Clock:
    """Seconds by part. On a GPU they are read from marks in its stream of work, all at once.

    Args:
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._cuda = device == "cuda"
        self._last = time.perf_counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._marks: list[tuple[str, torch.cuda.Event]] = []
        if self._cuda:
            self.mark("")

    def mark(self, part: str) -> None:
        """What was done since the last mark belongs to ``part``."""
        if self._cuda:
            import torch

            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._marks.append((part, event))
            return
        now = time.perf_counter()
        self._seconds[part] += now - self._last
        self._last = now

    def read(self) -> dict[str, float]:
        """Seconds of each part since the last reading, for which a GPU's work is waited for."""
        if self._marks:
            self._marks[-1][1].synchronize()
        for (_, begin), (part, end) in pairwise(self._marks):
            self._seconds[part] += begin.elapsed_time(end) / 1000
        self._marks = self._marks[-1:]
        seconds, self._seconds = dict(self._seconds), defaultdict(float)
        return seconds
