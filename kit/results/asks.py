"""What can be asked of a trajectory: a number of each of its curves.

The id of such a number is the trajectory's with the question behind it: ``all/forget/adamw:max``,
``all/forget/adamw:first-above:0.5``. The answers are cells like any other, one value a seed, and
are derived from the points wherever they are needed; no table stores them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from kit.manifest.printed import WHOLE
from kit.results.types import Cell, Curve, LineRef, Point, Results, SeedValue, Series

_ASK = re.compile(r"end|max|min|area|first-(above|below):[-+]?[0-9]{1,40}(\.[0-9]{1,40})?")


@dataclass(frozen=True)
class Ask:
    """A question to a curve.

    Attributes:
        kind: ``end``: the value at the last x. ``max``, ``min``: over all x. ``area``: under the
            curve by the trapezoidal rule, in unit of the values times unit of x. ``first-above``,
            ``first-below``: the first measured x at which the value is strictly above or below
            ``level``; nothing is interpolated, so it is known up to the distance of the points.
        level: Of a first crossing, in the unit of the series.
    """

    kind: str
    level: Fraction | None = None

    @property
    def crossing(self) -> bool:
        """Whether it asks for an x, which a curve may never reach."""
        return self.level is not None

    def unit(self, unit: str) -> str:
        """Unit of the answer, for values in ``unit``."""
        if self.crossing:
            return "count"
        return "number" if self.kind == "area" else unit


def split(id: str) -> tuple[str, Ask | None]:
    """The id of the trajectory, and what is asked of it; None for an id that asks nothing.

    Raises:
        ValueError: A question that there is not.
    """
    base, colon, text = id.partition(":")
    if not colon:
        return id, None
    if not _ASK.fullmatch(text):
        raise ValueError(
            f"{id!r} asks {text!r} of a trajectory: end, max, min, area, first-above:<value> and "
            "first-below:<value> can be asked"
        )
    kind, _, level = text.partition(":")
    return base, Ask(kind, Fraction(level) if level else None)


def of_single_curve(id: str) -> bool:
    """Whether an id asks for something whose noise a single curve does not show."""
    ask = split(id)[1]
    return ask is not None and ask.kind != "end"


def with_answers(results: Results, ids: Iterable[str]) -> tuple[dict[str, Cell], dict[str, str]]:
    """The cells of a table by id, with the answers that ``ids`` ask for.

    Args:
        results: The table.
        ids: Any ids; those that ask nothing, or that the table has, need no answer.

    Returns:
        Cells by id, and for every question that the curves cannot answer the reason.

    Raises:
        ValueError: A question that there is not.
    """
    cells = {cell.id: cell for cell in results.cells}
    unanswered: dict[str, str] = {}
    for id in ids:
        base, ask = split(id)
        if ask is None or id in cells or base not in cells:
            continue
        try:
            cells[id] = _answer(id, ask, cells[base], results.series)
        except ValueError as error:
            unanswered[id] = str(error)
    return cells, unanswered


def curves_of(line: LineRef, series: Sequence[Series]) -> tuple[list[Curve], str]:
    """The curves of a line, and their unit.

    Raises:
        ValueError: There is no such line.
    """
    for figure in series:
        if figure.id == line.series and line.line in figure.lines:
            return figure.lines[line.line], figure.unit
    raise ValueError(f"there is no line {line.line!r} of a series {line.series!r}")


def _answer(id: str, ask: Ask, cell: Cell, series: Sequence[Series]) -> Cell:
    if cell.not_run is not None:
        return Cell(id=id, unit=cell.unit, not_run=cell.not_run)
    if cell.trajectory is None:
        raise ValueError(f"{cell.id} is a single number, no trajectory")
    curves, unit = curves_of(cell.trajectory, series)
    if not curves or any(not curve.points for curve in curves):
        raise ValueError(f"{cell.id} has a curve without points")
    ranges = {(curve.points[0].x, curve.points[-1].x) for curve in curves}
    if len(ranges) > 1 and not ask.crossing:
        some = " and ".join(f"{a:g} to {b:g}" for a, b in sorted(ranges)[:2])
        raise ValueError(f"the curves of {cell.id} reach over different x ({some})")
    seeds = [_of_curve(curve, ask, unit, alone=len(curves) == 1) for curve in curves]
    known = not any(seed.beyond for seed in seeds)
    mean = sum((Fraction(repr(seed.value)) for seed in seeds), Fraction(0)) / len(seeds)
    return Cell(
        id=id,
        unit=ask.unit(unit),
        value=float(mean) if known else None,
        seeds=seeds,
        step=cell.step,
    )


def _of_curve(curve: Curve, ask: Ask, unit: str, *, alone: bool) -> SeedValue:
    points = curve.points
    if ask.crossing:
        hit = next((point.x for point in points if _past(point, ask, unit)), None)
        return SeedValue(
            seed=curve.seed, value=points[-1].x if hit is None else hit, beyond=hit is None
        )
    if ask.kind == "area":
        return SeedValue(seed=curve.seed, value=area(points))
    if ask.kind == "end":
        return SeedValue(seed=curve.seed, value=points[-1].value, k=points[-1].k, n=points[-1].n)
    choose: Callable[..., Point] = max if ask.kind == "max" else min
    best = choose(points, key=lambda point: point.value)
    # The extreme of a single run was chosen among many points: its count says too little noise.
    counts = (None, None) if alone else (best.k, best.n)
    return SeedValue(seed=curve.seed, value=best.value, k=counts[0], n=counts[1])


def _past(point: Point, ask: Ask, unit: str) -> bool:
    assert ask.level is not None
    value = Fraction(repr(point.value))
    if point.k is not None and point.n is not None and unit in WHOLE:
        value = Fraction(WHOLE[unit] * point.k, point.n)
    return value > ask.level if ask.kind == "first-above" else value < ask.level


def area(points: Sequence[Point]) -> float:
    """Area under a curve by the trapezoidal rule.

    Raises:
        ValueError: Fewer than two points.
    """
    if len(points) < 2:
        raise ValueError("an area needs two points")
    return float(sum((b.x - a.x) * (a.value + b.value) / 2 for a, b in pairwise(points)))
