"""A matrix of two settings as a heat map with its numbers in it.

Shade and number say the same, so the figure can be read without colour. The shade is one colour of
the page at different strength, so that it follows the page into dark mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from kit.report.figures.style import BAD, INK, MUTED, OPEN, RULE, SERIES, VOID, draw, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FRAME = {"deviates": BAD, "inconclusive": OPEN, "invalid": VOID}
STRONGEST = 0.55
"""Opacity of the largest value; more would hide the number on it."""
MAX_COLUMN = 20
MAX_ROW = 28
MAX_TEXT = 14
MAX_PUBLISHED = 16
"""Characters of a column's name, a row's, a measured number and a published one."""
MAX_LINE = 11
"""Characters of a column's name that stand on one line."""


class Square(Struct, frozen=True, kw_only=True):
    """One cell of the matrix."""

    row: int
    column: int
    text: str
    """The measured number, or why there is none."""
    shade: float | None = None
    """0 to 1; None where nothing was measured."""
    published: str = ""
    verdict: str = ""


def grid(
    name: str,
    rows: Sequence[str],
    columns: Sequence[str],
    squares: Sequence[Square],
    labels: tuple[str, str],
) -> str:
    """The figure as inline SVG.

    Args:
        name: Unique on the page.
        rows: Names, from top to bottom.
        columns: Names, from left to right.
        squares: At most one for each row and column.
        labels: Of the columns and of the rows.
    """

    def paint(ax: Axes) -> None:
        for square in squares:
            _square(ax, square)
        ax.set_xlim(-0.5, len(columns) - 0.5)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_xticks(range(len(columns)), [_broken(label(text, MAX_COLUMN)) for text in columns])
        ax.set_yticks(range(len(rows)), [label(text, MAX_ROW) for text in rows])
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
        ax.set_xlabel(label(labels[0]))
        ax.set_ylabel(label(labels[1]))

    return draw(name, min(12.0, max(4.2, 2.0 + 1.0 * len(columns))), 1.0 + 0.5 * len(rows), paint)


def _broken(name: str) -> str:
    """A long name on two lines, so that it does not run into its neighbour's."""
    head, hyphen, tail = name.rpartition("-")
    return f"{head}-\n{tail}" if hyphen and len(name) > MAX_LINE else name


def _square(ax: Axes, square: Square) -> None:
    from matplotlib.patches import Rectangle

    x, y = square.column, square.row
    corner, size = (x - 0.47, y - 0.46), (0.94, 0.92)
    if square.shade is None:
        ax.add_patch(Rectangle(corner, *size, facecolor="none", edgecolor=RULE, linewidth=0.7))
    else:
        alpha = 0.04 + (STRONGEST - 0.04) * min(1.0, max(0.0, square.shade))
        ax.add_patch(Rectangle(corner, *size, facecolor=SERIES[0], alpha=alpha, linewidth=0))
    frame = _FRAME.get(square.verdict)
    if frame is not None:
        dashes = "--" if square.verdict == "inconclusive" else "-"
        ax.add_patch(
            Rectangle(
                corner, *size, facecolor="none", edgecolor=frame, linewidth=1.5, linestyle=dashes
            )
        )
    measured = square.shade is not None
    raised = y - 0.13 if square.published else y
    ax.text(
        x, raised, label(square.text, MAX_TEXT), ha="center", va="center",
        color=INK if measured else MUTED, fontsize=8.5 if measured else 7,
    )  # fmt: skip
    if square.published:
        ax.text(
            x, y + 0.24, label(square.published, MAX_PUBLISHED), ha="center", va="center",
            color=MUTED, fontsize=6.5,
        )  # fmt: skip
