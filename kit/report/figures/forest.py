"""Forest plot: the published number with its margin against this run with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from kit.report.figures.style import BAD, GOOD, INK, MUTED, OPEN, RULE, VOID, draw, label
from kit.report.text import unit_word

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIMIT = 40
"""Rows of one figure; a taller one is no longer read."""
MAX_NAME = 34
"""Characters of the name of a row."""

_LOOK = {
    "match": (GOOD, "o"),
    "reproduced": (GOOD, "o"),
    "inconclusive": (OPEN, "D"),
    "deviates": (BAD, "s"),
    "invalid": (VOID, "X"),
}


class ForestRow(Struct, frozen=True, kw_only=True):
    """One cell of the figure, all numbers in one unit."""

    name: str
    verdict: str
    published: float | None = None
    zone: tuple[float, float] | None = None
    """Values that count as equal to the published one."""
    reference: tuple[float, float] | None = None
    """Smallest and largest value of the kit's reference runs."""
    value: float | None = None
    interval: tuple[float, float] | None = None


def forest(name: str, unit: str, rows: Sequence[ForestRow]) -> str:
    """The figure as inline SVG; ``rows`` from top to bottom."""

    def paint(ax: Axes) -> None:
        for y, row in enumerate(rows):
            _row(ax, y, row)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_yticks(range(len(rows)), [label(row.name, MAX_NAME) for row in rows])
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x")
        ax.set_axisbelow(True)
        ax.use_sticky_edges = False  # marks at 0 stay whole
        ax.margins(x=0.04)
        ax.set_xlabel(label(unit_word(unit)))

    return draw(name, 7.2, 0.75 + 0.27 * len(rows), paint)


def _row(ax: Axes, y: int, row: ForestRow) -> None:
    if row.zone is not None:
        low, high = row.zone
        ax.barh(y, high - low, left=low, height=0.62, color=RULE, linewidth=0)
    if row.reference is not None:
        ax.plot(row.reference, (y + 0.36, y + 0.36), color=MUTED, linewidth=2.2)
    if row.published is not None:
        ax.plot([row.published], [y], marker="|", markersize=12, color=INK, linestyle="none")
    if row.value is None:
        return
    colour, marker = _LOOK.get(row.verdict, (MUTED, "o"))
    if row.interval is not None:
        ax.plot(row.interval, (y, y), color=colour, linewidth=1.5)
    ax.plot([row.value], [y], marker=marker, markersize=5, color=colour, linestyle="none")
