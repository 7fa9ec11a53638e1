"""Curves of replicates, and the figures that they are drawn in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from kit.results.axes import Origin
from kit.results.ids import parse
from kit.results.types import Cell, Curve, LineRef, Point, Series


@dataclass(frozen=True)
class Line:
    """Which figure a curve stands in, and what its line is called.

    Attributes:
        figure: First part of the series id, ``<figure>/<group>``.
        title: Of the figure, without the group.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
        unit: Of the points' values.
        name: Of the line, without its settings.
    """

    figure: str
    title: str
    x_label: str
    y_label: str
    unit: str
    name: str


class Curves:
    """Collects curves: a figure a group, a line a name and setting, a curve a replicate."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str], Line] = {}
        self._points: dict[tuple[str, str], dict[str, dict[str, list[Point]]]] = {}

    def add(self, origin: Origin, line: Line, points: Iterable[Sequence[float]]) -> LineRef:
        """Add the curve of one replicate; returns its line.

        Args:
            origin: Whose it is.
            line: Where it belongs.
            points: ``(x, value)``, for a proportion ``(x, value, k, n)``; in any order.

        Raises:
            ValueError: The replicate has this line already, or two points at one x.
        """
        figure = line.figure, origin.group
        self._figures.setdefault(figure, line)
        name = " @ ".join((line.name, *origin.settings))
        curves = self._points.setdefault(figure, {}).setdefault(name, {})
        if origin.replicate in curves:
            raise ValueError(f"line {name} of {'/'.join(figure)} twice in {origin.replicate!r}")
        made = sorted((_point(*values) for values in points), key=lambda point: point.x)
        twice = next((a.x for a, b in pairwise(made) if a.x == b.x), None)
        if twice is not None:
            raise ValueError(f"line {name} of {'/'.join(figure)} has two points at {twice:g}")
        curves[origin.replicate] = made
        return LineRef(series="/".join(figure), line=name)

    def series(self) -> list[Series]:
        """The figures, in the order in which they were begun."""
        made = []
        for (figure, group), lines in self._points.items():
            line = self._figures[figure, group]
            made.append(
                Series(
                    id=f"{figure}/{group}",
                    title=f"{line.title}, {group}",
                    x_label=line.x_label,
                    y_label=line.y_label,
                    unit=line.unit,
                    lines={
                        name: [Curve(seed=seed, points=points) for seed, points in seeds.items()]
                        for name, seeds in lines.items()
                    },
                )
            )
        return made


def _point(x: float, value: float, k: float | None = None, n: float | None = None) -> Point:
    counts = (None if k is None else int(k), None if n is None else int(n))
    return Point(float(x), float(value), *counts)


def by_checkpoint(
    cells: Iterable[Cell], metric: str, *, x_label: str = "training step"
) -> list[Series]:
    """Curves over the rows ``<name>-<step>`` of a table: a figure a group, a line a name.

    Args:
        cells: Of a finished table; those of other metrics and rows are left out.
        metric: Second part of the cell ids.
        x_label: What the number at the end of a row counts.
    """
    figures: dict[str, dict[str, dict[str, list[Point]]]] = {}
    units: dict[str, str] = {}
    for cell in cells:
        id = parse(cell.id)
        name, _, step = id.row.rpartition("-")
        if id.about_generations or id.metric != metric or cell.value is None:
            continue
        if name and step.isdigit():
            line = figures.setdefault(id.group, {}).setdefault(" @ ".join((name, *id.settings)), {})
            units[id.group] = cell.unit
            for seed, value, k, n in _replicates(cell):
                line.setdefault(seed, []).append(Point(float(step), value, k, n))
    return [
        Series(
            id=f"{metric}/{group}",
            title=f"{metric} by {x_label}, {group}",
            x_label=x_label,
            y_label=metric,
            unit=units[group],
            lines={
                line: [
                    Curve(seed=seed, points=sorted(points, key=lambda point: point.x))
                    for seed, points in seeds.items()
                ]
                for line, seeds in lines.items()
            },
        )
        for group, lines in figures.items()
    ]


def _replicates(cell: Cell) -> list[tuple[str, float, int | None, int | None]]:
    """Seed, value, k and n; a cell measured once names no seed."""
    if cell.seeds:
        return [(seed.seed, seed.value, seed.k, seed.n) for seed in cell.seeds]
    assert cell.value is not None
    return [("", cell.value, cell.k, cell.n)]


def checkpoint_id(series: Series, line: str, x: float) -> str | None:
    """Id of the cell that a point of :func:`by_checkpoint` comes from; None where x is no step."""
    metric, slash, group = series.id.partition("/")
    name, *settings = line.split(" @ ")
    if not slash or x != int(x) or x < 0:
        return None
    row = "@".join((f"{name}-{int(x)}", *settings))
    return f"{group}/{metric}/{row}"
