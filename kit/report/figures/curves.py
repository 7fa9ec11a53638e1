"""Curves: the series of the results (loss, success rate by checkpoint, accuracy under attack).

A line is the mean over its seeds with a 95 % band; seeds that share no x are lines of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec import Struct

from kit.report.figures.style import DASHES, INK, MARKERS, MUTED, SERIES, draw, label
from kit.results.types import Curve, Series
from kit.verify.trajectory import MeanPoint, mean_line, shared_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

MOST_LINES = 12
MOST_POINTS = 400
MANY = 30
"""Points of a line from which on they are no longer marked one by one."""
MAX_NAME = 40
"""Characters of the name of a line."""


class Spot(Struct, frozen=True, kw_only=True):
    """A value with its interval, in one direction."""

    value: float
    interval: tuple[float, float] | None = None


class Mark(Spot, frozen=True, kw_only=True):
    """A number that the expectation has for a point of a line."""

    x: float


class Line(Struct, frozen=True, kw_only=True):
    """One drawn line."""

    name: str
    line: str
    """Of the series; several lines are drawn of one whose seeds share no x."""
    points: list[MeanPoint]
    seeds: int
    left_out: bool = False
    """Whether some seeds have points at x where others have none."""
    thinned: bool = False


def gather(series: Series) -> list[Line]:
    """Lines to draw, in their order; without those that have no point."""
    drawn: list[Line] = []
    for name, curves in series.lines.items():
        filled = [curve for curve in curves if curve.points]
        if shared_grid(filled):
            drawn.append(_line(name, name, filled, series.unit))
        else:
            drawn += [
                _line(f"{name}, {curve.seed}", name, [curve], series.unit) for curve in filled
            ]
    return drawn


def _line(name: str, line: str, curves: Sequence[Curve], unit: str) -> Line:
    grid = shared_grid(curves)
    return Line(
        name=name,
        line=line,
        points=mean_line(curves, unit, MOST_POINTS),
        seeds=len(curves),
        left_out=any(len(curve.points) > len(grid) for curve in curves),
        thinned=len(grid) > MOST_POINTS,
    )


Marks = Mapping[str, Sequence[Mark]]
"""Line name -> what the expectation says about it."""


def remarks_on(series: Series, marks: Marks = MappingProxyType({})) -> list[str]:
    """What a caption says about how the lines were made from the data."""
    lines = gather(series)
    remarks = []
    # A replicate of several axes, such as seed and order of the data, is more than a seed.
    whole = all("/" not in curve.seed for curves in series.lines.values() for curve in curves)
    kind = "seed" if whole else "replicate"
    joined = sorted({line.seeds for line in lines if line.seeds > 1})
    if joined:
        seeds = f"{joined[0]}" if len(joined) == 1 else f"{joined[0]} to {joined[-1]}"
        remarks.append(f"Lines are means over {seeds} {kind}s, bands their 95 % t intervals.")
    if any(line.seeds == 1 and _banded(line) for line in lines):
        remarks.append("Bands of single runs are Wilson\u2019s 95 % intervals over their items.")
    alone = [name for name in marks if name not in {line.line for line in lines}]
    if alone:
        remarks.append(
            f"Stars: {', '.join(alone)}, not measured here; with Wilson\u2019s interval where the "
            "number of items is printed."
        )
    if any(line.line in marks for line in lines[:MOST_LINES]):
        remarks.append(
            "Hollow marks: what the expectation says (published, or mean of reference runs), with "
            "Wilson\u2019s interval where the number of items is printed."
        )
    if any(line.left_out for line in lines):
        remarks.append(f"Points that not every {kind} of a line has are left out.")
    if len(lines) > MOST_LINES:
        remarks.append(f"The first {MOST_LINES} of {len(lines)} lines are drawn.")
    if any(line.thinned for line in lines[:MOST_LINES]):
        remarks.append(f"Long lines are thinned to {MOST_POINTS} points.")
    return remarks


def _banded(line: Line) -> bool:
    return any(point.interval is not None for point in line.points)


def curve(
    name: str,
    series: Series,
    marks: Marks = MappingProxyType({}),
    size: tuple[float, float] = (7.2, 3.5),
) -> str:
    """The figure as inline SVG.

    Args:
        name: Unique on the page.
        series: Measured.
        marks: What the expectation says.
        size: Inches.
    """
    lines = gather(series)[:MOST_LINES]

    def paint(ax: Axes) -> None:
        for i, line in enumerate(lines):
            _draw_line(ax, i, line)
        handles = list(ax.get_lines())
        for i, line in enumerate(lines):
            if line.line not in {other.line for other in lines[:i]}:
                _draw_marks(ax, i, marks.get(line.line, ()))
        alone = [name for name in marks if name not in {line.line for line in lines}]
        for name in alone:
            handles.append(_draw_marks(ax, None, marks[name]))
        ax.grid(axis="y")
        ax.set_axisbelow(True)
        ax.set_xlabel(label(series.x_label))
        ax.set_ylabel(label(series.y_label))
        names = [*(line.name for line in lines), *alone]
        if len(names) > 1:
            shown = [label(name, MAX_NAME) for name in names]
            ax.legend(handles, shown, loc="best", ncols=1 if len(names) <= 4 else 2)

    return draw(name, *size, paint)


def _draw_line(ax: Axes, i: int, line: Line) -> None:
    colour = SERIES[i % len(SERIES)]
    xs, ys = [point.x for point in line.points], [point.value for point in line.points]
    if _banded(line):
        spans = [point.interval for point in line.points]
        lows = [span.low if span else y for span, y in zip(spans, ys, strict=True)]
        highs = [span.high if span else y for span, y in zip(spans, ys, strict=True)]
        ax.fill_between(xs, lows, highs, color=colour, alpha=0.16, linewidth=0)
    marked = len(xs) < MANY
    ax.plot(
        xs,
        ys,
        color=colour,
        linestyle=DASHES[i % len(DASHES)],
        marker=MARKERS[i % len(MARKERS)] if marked else "",
        markersize=4,
    )


def _draw_marks(ax: Axes, i: int | None, marks: Sequence[Mark]) -> Line2D:
    """Hollow marks of a line; of numbers that no line was measured for in the ink of the page."""
    colour = INK if i is None else SERIES[i % len(SERIES)]
    for mark in marks:
        if mark.interval is not None:
            ax.plot((mark.x, mark.x), mark.interval, color=MUTED, linewidth=1)
    (drawn,) = ax.plot(
        [mark.x for mark in marks],
        [mark.value for mark in marks],
        linestyle="none",
        marker="*" if i is None else MARKERS[i % len(MARKERS)],
        markersize=9 if i is None else 6.5,
        markerfacecolor="none",
        markeredgecolor=colour,
    )
    return drawn
