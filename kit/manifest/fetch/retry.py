"""Try again when the network, and not the request, is at fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


class Transient(Exception):
    """Something that may go away: a 5xx answer, a timeout, a connection that broke."""


@dataclass(frozen=True)
class Retry:
    """How patient to be.

    Attributes:
        attempts: Tries in all.
        wait: Seconds before the second try; doubled each time.
        timeout: Seconds without a byte before a try is given up.
    """

    attempts: int = 4
    wait: float = 1.0
    timeout: float = 30.0

    def run(self, action: Callable[[], T], told: Callable[[str], None] | None = None) -> T:
        """The action's result.

        Raises:
            Transient: It failed transiently every time.
        """
        for attempt in range(1, self.attempts):
            try:
                return action()
            except Transient as error:
                pause = self.wait * 2 ** (attempt - 1)
                if told is not None:
                    told(f"{error}; trying again in {pause:g} s ({attempt} of {self.attempts - 1})")
                time.sleep(pause)
        return action()
