"""Curves of replicates, and the figures that they are drawn in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from kit.results.axes import Origin
from kit.results.ids import parse
from kit.results.types import Cell, Series


@dataclass(frozen=True)
class Line:
    """Which figure a curve stands in, and what its line is called.

    Attributes:
        figure: First part of the series id, ``<figure>/<group>``.
        title: Of the figure, without the group.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
        name: Of the line, without its settings.
    """

    figure: str
    title: str
    x_label: str
    y_label: str
    name: str


class Curves:
    """Collects curves: a figure a group, a line a name and setting, a curve a replicate."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str], Line] = {}
        self._points: dict[tuple[str, str], dict[str, dict[str, list[list[float]]]]] = {}

    def add(self, origin: Origin, line: Line, points: Iterable[Sequence[float]]) -> None:
        """Add the curve of one replicate.

        Raises:
            ValueError: The replicate has this line already.
        """
        figure = line.figure, origin.group
        self._figures.setdefault(figure, line)
        name = " @ ".join((line.name, *origin.settings))
        curves = self._points.setdefault(figure, {}).setdefault(name, {})
        if origin.replicate in curves:
            raise ValueError(f"line {name} of {'/'.join(figure)} twice in {origin.replicate!r}")
        curves[origin.replicate] = sorted([float(x), float(y)] for x, y in points)

    def series(self) -> list[Series]:
        """The figures, in the order in which they were begun; a line is the mean of its curves.

        Raises:
            ValueError: Replicates were measured at different x.
        """
        made = []
        for (figure, group), lines in self._points.items():
            line = self._figures[figure, group]
            made.append(
                Series(
                    id=f"{figure}/{group}",
                    title=f"{line.title}, {group}",
                    x_label=line.x_label,
                    y_label=line.y_label,
                    lines={
                        name: _mean(name, list(found.values())) for name, found in lines.items()
                    },
                )
            )
        return made


def _mean(name: str, curves: Sequence[list[list[float]]]) -> list[list[float]]:
    at = [x for x, _ in curves[0]]
    if any([x for x, _ in curve] != at for curve in curves):
        raise ValueError(f"the replicates of line {name} were measured at different points")
    return [[x, fmean(curve[i][1] for curve in curves)] for i, x in enumerate(at)]


def by_checkpoint(
    cells: Iterable[Cell], metric: str, *, x_label: str = "training step"
) -> list[Series]:
    """Curves over the rows ``<name>-<step>`` of a table: a figure a group, a line a name.

    Args:
        cells: Of a finished table; those of other metrics and rows are left out.
        metric: Second part of the cell ids.
        x_label: What the number at the end of a row counts.
    """
    figures: dict[str, dict[str, list[list[float]]]] = {}
    for cell in cells:
        id = parse(cell.id)
        name, _, step = id.row.rpartition("-")
        if id.about_generations or id.metric != metric or cell.value is None:
            continue
        if name and step.isdigit():
            line = " @ ".join((name, *id.settings))
            lines = figures.setdefault(id.group, {})
            lines.setdefault(line, []).append([float(step), cell.value])
    return [
        Series(
            id=f"{metric}/{group}",
            title=f"{metric} by {x_label}, {group}",
            x_label=x_label,
            y_label=metric,
            lines={line: sorted(points) for line, points in lines.items()},
        )
        for group, lines in figures.items()
    ]
