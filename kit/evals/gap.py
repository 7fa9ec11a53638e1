"""How much of the gap between no defence and the full defence is closed.

gap closed = (none - x) / (none - full), with attack success rates (transfer note, "Gap-closed
ratio"; defensive_tokens.md, 3.4). Fractions or percent alike, as long as all three agree.
"""

from __future__ import annotations


def gap_closed(none: float, x: float, full: float) -> float | None:
    """The ratio, or ``None`` where there is no gap to close (``none == full``).

    Below 0: worse than no defence. Above 1: better than the full defence.
    """
    return None if none == full else (none - x) / (none - full)
