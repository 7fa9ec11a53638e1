"""Try again when the network, and not the request, is at fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

T = TypeVar("T")


LONGEST = 120.0
"""Seconds that a server's own ``Retry-After`` is honoured at most."""


class Transient(Exception):
    """Something that may go away: a 5xx answer, a timeout, a connection that broke.

    Args:
        message: What happened.
        after: Seconds that the server asked to be left alone.
    """

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


def retry_after(header: str | None) -> float | None:
    """Seconds of a ``Retry-After`` header (a number, or an HTTP date); RFC 9110, 10.2.3."""
    text = (header or "").strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        wanted = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    if wanted.tzinfo is None:
        return None
    return max(0.0, (wanted - datetime.now(UTC)).total_seconds())


@dataclass(frozen=True)
class Retry:
    """How patient to be.

    Attributes:
        attempts: Tries in all.
        wait: Seconds before the second try; doubled each time. Longer if the server asks for it.
        timeout: Seconds without a byte before a try is given up.
    """

    attempts: int = 4
    wait: float = 1.0
    timeout: float = 30.0

    def run(self, action: Callable[[], T], say: Callable[[str], None] | None = None) -> T:
        """The action's result.

        Raises:
            Transient: It failed transiently every time.
        """
        for attempt in range(1, self.attempts):
            try:
                return action()
            except Transient as error:
                pause = max(self.wait * 2 ** (attempt - 1), min(error.after or 0.0, LONGEST))
                if say is not None:
                    say(f"{error}; trying again in {pause:g} s ({attempt} of {self.attempts - 1})")
                time.sleep(pause)
        return action()
