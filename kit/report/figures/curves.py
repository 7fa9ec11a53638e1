"""Curves: whatever series the results carry (loss, success rate by checkpoint, trade-off).

A line is a list of points ``[x, y]`` or ``[x, y, low, high]``; the latter get a band. Lines whose
names differ only in a trailing seed (``adapted, seed 3``) and that share their x values are
replicates: they become one line, their mean, with a band from the smallest to the largest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from kit.report.figures.style import DASHES, MARKERS, SERIES, draw, label
from kit.results.types import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES = 12
MOST_POINTS = 400
_SEED = re.compile(r"^(.*?)[\s,/@\[(]*\bseed[\s=:_-]*[\w.-]+[\])]?$", re.IGNORECASE)


class Line(Struct, frozen=True, kw_only=True):
    """One drawn line."""

    name: str
    points: list[tuple[float, float, float, float]]
    """(x, y, low, high); low and high equal y where there is no band."""
    replicates: int = 1

    @property
    def banded(self) -> bool:
        """Whether there is a band to draw."""
        return any(low < high for _, _, low, high in self.points)


def gather(lines: Mapping[str, Sequence[Sequence[float]]]) -> list[Line]:
    """Lines to draw: broken points dropped, replicates joined, order kept."""
    groups: dict[str, list[list[tuple[float, float, float, float]]]] = {}
    names: dict[str, list[str]] = {}
    for name, raw in lines.items():
        points = [p for p in (_point(item) for item in raw) if p is not None]
        found = _SEED.match(name)
        stem = (found.group(1).strip() or "all seeds") if found else name
        groups.setdefault(stem, []).append(points)
        names.setdefault(stem, []).append(name)
    drawn: list[Line] = []
    for stem, members in groups.items():
        grids = {tuple(p[0] for p in points) for points in members}
        if len(members) > 1 and len(grids) == 1:
            drawn.append(Line(name=stem, points=_mean(members), replicates=len(members)))
        else:
            pairs = zip(names[stem], members, strict=True)
            drawn += [Line(name=name, points=points) for name, points in pairs]
    return [line for line in drawn if line.points]


def _point(raw: Sequence[float]) -> tuple[float, float, float, float] | None:
    if len(raw) not in (2, 4) or not all(math.isfinite(v) for v in raw):
        return None
    x, y = raw[0], raw[1]
    return (x, y, raw[2], raw[3]) if len(raw) == 4 else (x, y, y, y)


def _mean(
    members: Sequence[Sequence[tuple[float, float, float, float]]],
) -> list[tuple[float, float, float, float]]:
    joined = []
    for column in zip(*members, strict=True):
        ys = [p[1] for p in column]
        low, high = min(p[2] for p in column), max(p[3] for p in column)
        joined.append((column[0][0], math.fsum(ys) / len(ys), low, high))
    return joined


def remarks_on(series: Series) -> list[str]:
    """What a caption says about how the lines were made from the data."""
    lines = gather(series.lines)
    remarks = []
    joined = [line for line in lines if line.replicates > 1]
    if joined:
        counts = sorted({line.replicates for line in joined})
        seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        remarks.append(f"Lines are means over {seeds} seeds, bands their smallest and largest.")
    if len(lines) > MOST_LINES:
        remarks.append(f"The first {MOST_LINES} of {len(lines)} lines are drawn.")
    if any(len(line.points) > MOST_POINTS for line in lines[:MOST_LINES]):
        remarks.append(f"Long lines are thinned to {MOST_POINTS} points.")
    return remarks


def curve(name: str, series: Series) -> str:
    """The figure as inline SVG."""
    lines = gather(series.lines)[:MOST_LINES]

    def paint(ax: Axes) -> None:
        for i, line in enumerate(lines):
            _line(ax, i, line)
        ax.grid(axis="y")
        ax.set_axisbelow(True)
        ax.set_xlabel(label(series.x_label))
        ax.set_ylabel(label(series.y_label))
        if len(lines) > 1:
            columns = 1 if len(lines) <= 4 else 2
            handles = ax.get_lines()
            ax.legend(handles, [label(line.name, 40) for line in lines], loc="best", ncols=columns)

    return draw(name, 7.2, 3.5, paint)


def _line(ax: Axes, i: int, line: Line) -> None:
    colour = SERIES[i % len(SERIES)]
    step = math.ceil(len(line.points) / MOST_POINTS)
    points = line.points[::step]
    if points[-1] != line.points[-1]:
        points = [*points, line.points[-1]]
    xs, ys, lows, highs = (list(column) for column in zip(*points, strict=True))
    if line.banded:
        ax.fill_between(xs, lows, highs, color=colour, alpha=0.16, linewidth=0)
    marked = len(points) <= 30
    ax.plot(
        xs,
        ys,
        color=colour,
        linestyle=DASHES[i % len(DASHES)],
        marker=MARKERS[i % len(MARKERS)] if marked else "",
        markersize=4,
    )
