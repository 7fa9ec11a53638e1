"""What an expectation says about the points of a measured curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kit.manifest.expectation_types import ExpectedCell
from kit.manifest.printed import factor
from kit.report.figures.curves import Mark, Spot
from kit.results.curves import checkpoint_id
from kit.results.types import Cell, Curve, Series
from kit.verify.trajectory import share_interval


def expected_points(
    series: Series, expected: Mapping[str, ExpectedCell], cells: Sequence[Cell]
) -> dict[str, list[Mark]]:
    """Line name -> its expected points, in the unit of the series.

    They come from the published ``series`` of a trajectory cell that refers to the line, or, for
    curves over checkpoints, from the cells of the single checkpoints.

    Args:
        series: Measured.
        expected: Cells of the expectation by id.
        cells: Of the table that the series belongs to.
    """
    marks: dict[str, list[Mark]] = {}
    for name, curves in series.lines.items():
        points = [
            mark
            for cell in cells
            if cell.trajectory is not None
            and (cell.trajectory.series, cell.trajectory.line) == (series.id, name)
            and cell.id in expected
            for mark in _of_curve(expected[cell.id], series.unit)
        ]
        points = points or _of_checkpoints(series, name, curves, expected)
        if points:
            marks[name] = points
    return marks


def _of_curve(cell: ExpectedCell, unit: str) -> list[Mark]:
    return [_over(float(x), spot) for x, y in cell.series for spot in _spots(float(y), cell, unit)]


def _of_checkpoints(
    series: Series, line: str, curves: Sequence[Curve], expected: Mapping[str, ExpectedCell]
) -> list[Mark]:
    xs = sorted({point.x for curve in curves for point in curve.points})
    cells = {x: expected.get(checkpoint_id(series, line, x) or "") for x in xs}
    return [m for x, cell in cells.items() if cell is not None for m in mark(x, cell, series.unit)]


def mark(x: float, cell: ExpectedCell, unit: str) -> list[Mark]:
    """The cell's number as a point over ``x``, in ``unit``; nothing where it has none."""
    return [_over(x, spot) for spot in spots(cell, unit)]


def spots(cell: ExpectedCell, unit: str) -> list[Spot]:
    """The cell's number in ``unit``, alone; nothing where it has none."""
    number = expected_number(cell)
    return [] if number is None else _spots(number, cell, unit)


def _over(x: float, spot: Spot) -> Mark:
    return Mark(x=x, value=spot.value, interval=spot.interval)


def _spots(value: float, cell: ExpectedCell, unit: str) -> list[Spot]:
    """A number of the cell in ``unit``; nothing where units do not compare."""
    ratio = factor(cell.unit, unit)
    if ratio is None:
        return []
    span, scale = expected_interval(cell, value), float(ratio)
    interval = None if span is None else (span[0] * scale, span[1] * scale)
    return [Spot(value=value * scale, interval=interval)]


def expected_number(cell: ExpectedCell) -> float | None:
    """The published number, else the mean of the kit's reference runs."""
    if cell.value is not None:
        return float(cell.value)
    return float(cell.reference.mean) if cell.reference is not None else None


def expected_interval(cell: ExpectedCell, value: float) -> tuple[float, float] | None:
    """Wilson's interval of a published proportion; None for other numbers and for references."""
    if cell.n is None or (cell.value is None and not cell.series):
        return None
    share = share_interval(value, cell.n, cell.unit)
    return None if share is None else (share.low, share.high)
