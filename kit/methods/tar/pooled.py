"""A statistic over an axis: the mean over adversaries, the spread over orders of the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from kit.results.axes import Axes, name_of
from kit.results.builder import TableBuilder

Curve = Mapping[int, float]


def _range(values: Sequence[float]) -> float:
    return max(values) - min(values)


STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {"mean": fmean, "range": _range}


@dataclass(frozen=True)
class Pooled:
    """What is computed over an axis.

    Attributes:
        axis: Over which.
        statistic: A name of :data:`STATISTICS`.
        steps: Points of the curves, besides their maximum.
    """

    axis: str
    statistic: str
    steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a statistic that there is not.

        Raises:
            ValueError: With those that there are.
        """
        if self.statistic not in STATISTICS:
            raise ValueError(
                f"no statistic {self.statistic!r} over an axis; there are {', '.join(STATISTICS)}"
            )


def pool(
    builder: TableBuilder,
    axes: Axes,
    curves: Sequence[tuple[Mapping[str, Any], Curve]],
    wanted: Pooled,
) -> None:
    """Add ``<statistic>-over-<axis>/max`` and ``/step-<n>``, in percent.

    Args:
        builder: Of the table.
        axes: Of the experiment.
        curves: Axes of an attack and its curve, step -> percent.
        wanted: The statistic.

    Raises:
        ValueError: No attack has the axis, or a point was not measured.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Curve]] = {}
    others: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for at, curve in curves:
        if wanted.axis not in at:
            continue
        rest = {axis: value for axis, value in at.items() if axis != wanted.axis}
        key = tuple((axis, name_of(value)) for axis, value in rest.items())
        groups.setdefault(key, []).append(curve)
        others[key] = rest
    if not groups:
        raise ValueError(f"no attack has the axis {wanted.axis}")
    statistic = STATISTICS[wanted.statistic]
    for key, members in groups.items():
        here = builder.at(axes.origin("", others[key]))
        metric = f"{wanted.statistic}-over-{wanted.axis}"
        here.number(metric, "max", statistic([max(c.values()) for c in members]), "percent")
        for step in wanted.steps:
            if any(step not in curve for curve in members):
                raise ValueError(f"step {step} was not measured in every attack of {dict(key)}")
            here.number(metric, f"step-{step}", statistic([c[step] for c in members]), "percent")
