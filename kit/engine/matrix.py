"""Axes of a profile: expansion, references (:mod:`kit.manifest.refs`), seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kit.errors import InvalidInput, UsageError
from kit.manifest import refs
from kit.manifest.axes import LARGEST_SEED, axis_id, excluded, id_fault
from kit.manifest.types import AxisValue, Profile, Scalar

MOST_POINTS = 200_000
"""Combinations of one step's axes; two axes of a manifest of 5 MB could ask for a billion."""


@dataclass(frozen=True)
class Point:
    """One combination of axis values.

    Attributes:
        labels: Axis -> the short name that stands in instance ids.
        values: Axis -> scalar, or record for record axes.
    """

    labels: dict[str, str]
    values: dict[str, Any]

    def instance(self, step: str) -> str:
        """Instance id of a step at this point, ``train[pair=newer-0]``."""
        if not self.labels:
            return step
        return f"{step}[{','.join(f'{axis}={label}' for axis, label in self.labels.items())}]"


def label_of(value: AxisValue, *, where: str) -> str:
    """The short name of an axis value: a record's ``id``, or the scalar as JSON prints it."""
    fault = id_fault(value)
    if fault:
        raise InvalidInput(
            fault,
            where=where,
            next_step="use a record with a plain id: {id: short-name, value: ...}",
        )
    return axis_id(value)


def expand(
    matrix: Mapping[str, Sequence[AxisValue]],
    each: Sequence[str],
    exclude: Sequence[Mapping[str, Scalar]] = (),
    *,
    where: str,
) -> list[Point]:
    """All combinations of the axes in ``each``, the last axis varying fastest.

    Args:
        matrix: Axis -> values.
        each: Axes to combine.
        exclude: Combinations to leave out, axis -> id.
        where: For messages.
    """
    columns: list[list[tuple[str, AxisValue]]] = []
    for axis in each:
        if axis not in matrix:
            raise InvalidInput(
                f"'each' names the axis {axis!r}, which the profile's matrix lacks",
                where=where,
                next_step=f"axes of this profile: {', '.join(matrix) or 'none'}",
            )
        column = [
            (label_of(value, where=f"{where}, axis {axis!r}"), value) for value in matrix[axis]
        ]
        labels = [label for label, _ in column]
        if len(set(labels)) != len(labels):
            twice = next(label for label in labels if labels.count(label) > 1)
            raise InvalidInput(f"axis {axis!r} has the value {twice!r} twice", where=where)
        columns.append(column)
    points = math.prod(len(column) for column in columns)
    if points > MOST_POINTS:
        raise InvalidInput(
            f"its axes have {points:,} combinations; the limit is {MOST_POINTS:,}", where=where
        )
    made = [
        Point(
            labels={axis: label for axis, (label, _) in zip(each, combination, strict=True)},
            values={axis: value for axis, (_, value) in zip(each, combination, strict=True)},
        )
        for combination in itertools.product(*columns)
    ]
    return [point for point in made if not excluded(point.labels, exclude)]


def resolve(
    value: Any,
    axes: Mapping[str, Any],
    pins: Mapping[str, str],
    *,
    where: str,
    path: tuple[str | int, ...] = (),
) -> Any:
    """Replace references in a parameter value (a scalar, or a list of scalars).

    Args:
        value: What the manifest says.
        axes: Axis -> value of the instance.
        pins: The profile's local pin names -> pin ids.
        where: For messages.
        path: Place in the manifest, where it is known.
    """
    try:
        return refs.resolve(value, axes, pins)
    except refs.BadReference as error:
        raise InvalidInput(
            str(error),
            where=where,
            why="a step sees the axes it names in 'each', and the profile's pins",
            next_step="correct the reference, or add the axis to the step's 'each'",
            path=path,
        ) from None


def resolve_matrix(
    matrix: Mapping[str, Sequence[AxisValue]], pins: Mapping[str, str], *, where: str
) -> dict[str, list[AxisValue]]:
    """The matrix with ``${pins.x}`` replaced inside its values."""
    return {
        axis: [
            {k: resolve(v, {}, pins, where=f"{where}, axis {axis!r}") for k, v in value.items()}
            if isinstance(value, dict)
            else resolve(value, {}, pins, where=f"{where}, axis {axis!r}")
            for value in values
        ]
        for axis, values in matrix.items()
    }


def seed_offset(matrix: Mapping[str, Sequence[AxisValue]], first: int, *, where: str) -> int:
    """By how much all seeds of the matrix move so that the smallest becomes ``first``.

    Seeds are the axis ``seed`` and the field ``seed`` of record axes; moving them together keeps
    replicates distinct and paired as before.

    Raises:
        UsageError: The matrix has no seeds, or they would leave the range that libraries take.
    """
    seeds = [
        value["seed"] if isinstance(value, dict) else value
        for axis, values in matrix.items()
        for value in values
        if (isinstance(value, dict) and "seed" in value) or axis == "seed"
    ]
    numbers = [seed for seed in seeds if isinstance(seed, int) and not isinstance(seed, bool)]
    if not numbers or len(numbers) != len(seeds):
        raise UsageError(
            "--seed has nothing to move: the matrix has no whole-number seeds",
            where=where,
            next_step="give the seed to the step that has one: --set step.seed=N",
        )
    offset = first - min(numbers)
    if first < 0 or max(numbers) + offset > LARGEST_SEED:
        raise UsageError(
            f"--seed {first}: seeds are whole numbers from 0 to {LARGEST_SEED}, the largest that "
            "every library takes",
            where=where,
            next_step="for example --seed 7",
        )
    return offset


def shift_seeds(profile: Profile, first: int, *, where: str) -> Profile:
    """A profile with its seeds moved, also where combinations and models name one.

    Raises:
        UsageError: As :func:`seed_offset`.
    """
    offset = seed_offset(profile.matrix, first, where=where)

    def moved(axis: str, value: AxisValue) -> AxisValue:
        if isinstance(value, dict):
            seed = value.get("seed")
            return {**value, "seed": seed + offset} if isinstance(seed, int) else value
        return value + offset if axis == "seed" and isinstance(value, int) else value

    def named(entry: Mapping[str, Scalar]) -> dict[str, Any]:
        return {axis: moved(axis, value) for axis, value in entry.items()}

    return msgspec.structs.replace(
        profile,
        matrix={a: [moved(a, value) for value in values] for a, values in profile.matrix.items()},
        exclude=[named(entry) for entry in profile.exclude],
        models={
            name: msgspec.structs.replace(model, at=named(model.at))
            for name, model in profile.models.items()
        },
    )
