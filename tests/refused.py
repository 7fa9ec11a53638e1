"""Thresholds in tests: one side is refused, the other is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def refused(act: Callable[[], object], wrong: bool, match: str = "") -> None:
    """Whether ``act`` is refused with a ValueError exactly if it is wrong."""
    if wrong:
        with pytest.raises(ValueError, match=match):
            act()
    else:
        act()
