"""Two metrics against each other: a point a setting, published points hollow beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from kit.report.figures.curves import Spot
from kit.report.figures.style import INK, MARKERS, MUTED, SERIES, draw, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 24
"""More points than this are not named in the figure."""
MAX_NAME = 28
"""Characters of the name of a point."""
WIDTH, LINE, APART = 4.2, 8.5, 5.0
"""Points: width of a character at most, height of a name, and its distance from its mark."""


class Setting(Struct, frozen=True, kw_only=True):
    """What one setting gave, and what was published for it."""

    name: str
    measured: tuple[Spot, Spot] | None = None
    published: tuple[Spot, Spot] | None = None


def trade_off(
    name: str,
    settings: Sequence[Setting],
    labels: tuple[str, str],
    over: Sequence[tuple[Spot, Spot]] = (),
    size: tuple[float, float] = (7.2, 4.6),
) -> str:
    """The figure as inline SVG.

    Args:
        name: Of the figure in its page.
        settings: Named points.
        labels: Of x and y.
        over: Points of another scale, grey and without names.
        size: Inches.
    """

    def paint(ax: Axes) -> None:
        for x, y in over:
            _cross(ax, x, y, MUTED)
            ax.plot(
                [x.value], [y.value], marker="D", markersize=5, markerfacecolor="none",
                markeredgecolor=MUTED, linestyle="none",
            )  # fmt: skip
        for i, setting in enumerate(settings):
            _setting(ax, i, setting)
        ax.grid(visible=True)
        ax.set_axisbelow(True)
        ax.margins(0.09)
        ax.set_xlabel(label(labels[0]))
        ax.set_ylabel(label(labels[1]))
        if len(settings) <= NAMED:
            _names(ax, settings)

    return draw(name, *size, paint)


def _setting(ax: Axes, i: int, setting: Setting) -> None:
    colour, marker = SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]
    if setting.published is not None:
        x, y = setting.published
        _cross(ax, x, y, MUTED)
        ax.plot(
            [x.value], [y.value], marker=marker, markersize=6.5, markerfacecolor="none",
            markeredgecolor=colour, linestyle="none",
        )  # fmt: skip
    if setting.measured is not None:
        x, y = setting.measured
        _cross(ax, x, y, colour)
        ax.plot([x.value], [y.value], marker=marker, markersize=5, color=colour, linestyle="none")
    if setting.measured is not None and setting.published is not None:
        there, here = setting.published, setting.measured
        ax.plot(
            [there[0].value, here[0].value], [there[1].value, here[1].value], color=MUTED,
            linewidth=0.7, linestyle=":",
        )  # fmt: skip


def _names(ax: Axes, settings: Sequence[Setting]) -> None:
    """A name beside each point; those that would cover another move up, with a line to the point.

    Names of points in the right third stand to the left of them.
    """
    ax.autoscale_view()
    scale = 72 / ax.figure.dpi
    spots = []
    for setting in settings:
        spot = setting.measured or setting.published
        if spot is not None:
            x, y = ax.transData.transform((spot[0].value, spot[1].value)) * scale
            spots.append((y, x, label(setting.name, MAX_NAME), (spot[0].value, spot[1].value)))
    left, right = (edge * scale for edge in ax.bbox.intervalx)
    taken: list[tuple[float, float, float]] = []
    for y, x, text, point in sorted(spots):
        width, flipped = WIDTH * len(text), x > left + (right - left) * 2 / 3
        start = x - APART - width if flipped else x + APART
        bottom = y + APART
        for low, other, end in sorted(taken):
            if abs(low - bottom) < LINE and other < start + width and start < end:
                bottom = low + LINE
        taken.append((bottom, start, start + width))
        moved = bottom - y > APART
        ax.annotate(
            text, point, xytext=(-APART if flipped else APART, bottom - y),
            textcoords="offset points", fontsize=7, color=INK, ha="right" if flipped else "left",
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": MUTED} if moved else None,
        )  # fmt: skip


def _cross(ax: Axes, x: Spot, y: Spot, colour: str) -> None:
    if x.interval is not None:
        ax.plot(x.interval, (y.value, y.value), color=colour, linewidth=1)
    if y.interval is not None:
        ax.plot((x.value, x.value), y.interval, color=colour, linewidth=1)
