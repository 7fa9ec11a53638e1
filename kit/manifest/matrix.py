"""The matrix of a profile: its axes, their values, references to them, their combinations.

References are whole strings: ``${axis}``, ``${axis.field}``, ``${pins.name}``. Planning replaces
them for one combination of axis values; lint follows them to find out whether each leads somewhere.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from kit.errors import InvalidInput, UsageError
from kit.manifest.source import PathTuple
from kit.manifest.types import (
    AxisValue,
    InputRef,
    Manifest,
    ModelSource,
    Profile,
    Scalar,
    StepSpec,
    profile_of,
    steps_of,
    values_of,
)

MOST_POINTS = 200_000
"""Combinations of one step's axes; two axes of a manifest of 5 MB could ask for a billion."""

LARGEST_SEED = 2**32 - 1
"""NumPy takes no larger one."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", re.ASCII)
_ID_WORDS = "letters, digits, '.', '_', '+' and '-', beginning with a letter or digit, 64 at most"


def axis_id(value: AxisValue) -> str:
    """The short name of an axis value: of a record its ``id``, of a scalar its text."""
    if isinstance(value, dict):
        return str(value.get("id", ""))
    return str(value).lower() if isinstance(value, bool) else str(value)


def combinations(
    profile: Profile, axes: Sequence[str], limit: int = 1000
) -> Iterator[dict[str, AxisValue]]:
    """Combinations of axis values, the last axis varying fastest; at most ``limit`` of them."""
    known = [axis for axis in axes if axis in profile.matrix]
    product = itertools.product(*(profile.matrix[axis] for axis in known))
    for values in itertools.islice(product, limit):
        point = dict(zip(known, values, strict=True))
        labels = {axis: axis_id(value) for axis, value in point.items()}
        if not excluded(labels, profile.exclude):
            yield point


def excluded(labels: Mapping[str, str], exclude: Sequence[Mapping[str, Scalar]]) -> bool:
    """Whether a combination is left out: an entry of ``exclude`` names only values it has."""
    return any(
        all(labels.get(axis) == axis_id(value) for axis, value in entry.items())
        for entry in exclude
    )


def id_fault(value: AxisValue) -> str:
    """Why an axis value cannot name an instance, or nothing. References are not looked at."""
    label = axis_id(value)
    if isinstance(value, dict) and "id" not in value:
        return "a record of an axis has no id, by which instances are named"
    text = value["id"] if isinstance(value, dict) else value
    if not isinstance(text, str) or text.startswith("${") or _ID.fullmatch(label):
        return ""
    return f"{_short(label)} cannot name an instance: {_ID_WORDS}"


def seed_fault(value: object) -> str:
    """Why a value is no seed, or nothing. References are not looked at."""
    if isinstance(value, str) and value.startswith("${"):
        return ""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and 0 <= value <= LARGEST_SEED:  # type: ignore[operator]
        return ""
    return f"{_short(str(value))} is no seed: a whole number from 0 to {LARGEST_SEED}"


def _short(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:57] + "...")


def profile_faults(name: str, profile: Profile) -> Iterator[tuple[PathTuple, str]]:
    """Axis values and seeds that no library or file system would take, with their places."""
    for axis, values in profile.matrix.items():
        for index, value in enumerate(values):
            yield from _value_faults(axis, value, ("profiles", name, "matrix", axis, index))
    for step in profile.set:
        if fault := seed_fault(values_of(profile, step).get("seed", 0)):
            yield ("profiles", name, "set", step, "seed"), fault


def _value_faults(axis: str, value: AxisValue, path: PathTuple) -> Iterator[tuple[PathTuple, str]]:
    if axis == "seed" and not isinstance(value, dict):
        if fault := seed_fault(value):
            yield path, fault
        return
    if fault := id_fault(value):
        yield path, fault
    if isinstance(value, dict):
        if "seed" in value and (fault := seed_fault(value["seed"])):
            yield (*path, "seed"), fault
        if "group" in value and (fault := id_fault(value["group"])):
            yield (*path, "group"), fault


_REFERENCE = re.compile(r"\$\{([^{}]*)\}")


class BadReference(InvalidInput):
    """A reference that leads nowhere."""

    def __init__(self, what: str) -> None:
        super().__init__(
            what,
            why="a step sees the axes it names in 'each', and the profile's pins",
            next_step="correct the reference, or add the axis to the step's 'each'",
        )


def resolve(value: Any, axes: Mapping[str, AxisValue], pins: Mapping[str, str]) -> Any:
    """A value with its references replaced, for one combination of axis values.

    Args:
        value: What the manifest says; lists and maps of values too.
        axes: Axis -> value of the instance.
        pins: The profile's local pin names -> pin ids.

    Raises:
        BadReference: Unknown axis, field or pin name, or a reference inside other text.
    """
    if isinstance(value, list):
        return [resolve(item, axes, pins) for item in value]
    if isinstance(value, dict):
        return {name: resolve(item, axes, pins) for name, item in value.items()}
    if not isinstance(value, str) or "${" not in value:
        return value
    match = _REFERENCE.fullmatch(value)
    if match is None:
        raise BadReference(
            f"{value!r} mixes a reference with other text; it must be the whole string"
        )
    name = match.group(1)
    if name.startswith("pins."):
        local = name.removeprefix("pins.")
        if local not in pins:
            raise BadReference(
                f"{value}: the profile has no pin name {local!r} "
                f"(it has: {', '.join(sorted(pins)) or 'none'})"
            )
        return pins[local]
    if name in axes:
        whole = axes[name]
        return whole["id"] if isinstance(whole, dict) and "id" in whole else whole
    axis, _, field = name.rpartition(".")
    record = axes.get(axis)
    if isinstance(record, dict):
        if field in record:
            return resolve(record[field], {}, pins)
        raise BadReference(
            f"{value}: {axis_id(record)!r} of axis {axis!r} has no field {field!r} "
            f"(it has: {', '.join(record)})"
        )
    raise BadReference(
        f"{value}: no axis {axis or name!r} here (axes: {', '.join(axes) or 'none'})"
    )


def meanings(text: str, profile: Profile, each: Sequence[str]) -> dict[str, dict[str, AxisValue]]:
    """What a reference means in a profile for a step over ``each``: value -> a point where it does.

    Raises:
        BadReference: The reference leads nowhere.
    """
    used = [axis for axis in each if f"${{{axis}" in text]
    points: dict[str, dict[str, AxisValue]] = {}
    # A value may have all its combinations excluded, which only all axes together show.
    for point in combinations(
        profile, each if used and profile.exclude else used, limit=MOST_POINTS
    ):
        meaning = str(resolve(text, point, profile.pins))
        points.setdefault(meaning, {axis: point[axis] for axis in used if axis in point})
    return points


def pin_ids(source: InputRef, profile: Profile, each: Sequence[str]) -> list[str]:
    """Every pin that an input means in a profile, itself or by the name of a model.

    Raises:
        BadReference: The reference leads nowhere.
    """
    if source.pin is not None:
        return list(meanings(source.pin, profile, each))
    names: dict[str, None] = {}
    for model in models(source, profile, each).values():
        if model.pin is not None:
            names[str(resolve(model.pin, {}, profile.pins))] = None
    return list(names)


def models(source: InputRef, profile: Profile, each: Sequence[str]) -> dict[str, ModelSource]:
    """The models that an input's ``model`` means in a profile, by name; none without ``model``.

    Names that the profile does not have are left out: :mod:`kit.engine.wiring` reports them.

    Raises:
        BadReference: The reference leads nowhere.
    """
    names = meanings(source.model, profile, each) if source.model is not None else ()
    return {name: profile.models[name] for name in names if name in profile.models}


def read_steps(step: StepSpec, profile: Profile) -> dict[str, set[str]]:
    """Input -> steps that it reads in a profile, also those that make a model for it."""
    steps: dict[str, set[str]] = {}
    for name, source in step.inputs.items():
        try:
            named = {model.step for model in models(source, profile, step.each).values()}
        except BadReference:
            named = set()
        steps[name] = {id for id in (source.step, *named) if id is not None}
    return steps


def needed_pins(manifest: Manifest, profile: str) -> list[str]:
    """Ids of the pins a profile's steps name, in order of first use.

    References are followed through the profile's local names, models and matrix.

    Raises:
        BadReference: One leads nowhere; with its path.
    """
    spec = profile_of(manifest, profile)
    ids: dict[str, None] = {}
    for step in steps_of(manifest, profile).values():
        for name, source in step.inputs.items():
            try:
                ids.update(dict.fromkeys(pin_ids(source, spec, step.each)))
            except BadReference as error:
                error.path = ("steps", step.id, "inputs", name)
                raise
    return list(ids)


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


def points(profile: Profile, each: Sequence[str]) -> list[Point]:
    """All combinations of the axes in ``each``, the last axis varying fastest.

    The rules of :mod:`kit.engine.wiring` hold: every axis is there, its values have names of their
    own, and their number has a limit.
    """
    return [
        Point({axis: axis_id(value) for axis, value in point.items()}, point)
        for point in combinations(profile, each, limit=MOST_POINTS)
    ]


def resolved(name: str, profile: Profile) -> Profile:
    """The profile of this name with ``${pins.x}`` replaced inside the values of its matrix.

    Raises:
        InvalidInput: There is no such name.
    """
    matrix: dict[str, list[AxisValue]] = {}
    for axis, values in profile.matrix.items():
        matrix[axis] = []
        for index, value in enumerate(values):
            try:
                matrix[axis].append(resolve(value, {}, profile.pins))
            except BadReference as error:
                error.path = ("profiles", name, "matrix", axis, index)
                raise
    return replace(profile, matrix=matrix)


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

    return replace(
        profile,
        matrix={a: [moved(a, value) for value in values] for a, values in profile.matrix.items()},
        exclude=[named(entry) for entry in profile.exclude],
        models={name: replace(model, at=named(model.at)) for name, model in profile.models.items()},
    )


def with_trials(profile: Profile, trials: int, *, where: str) -> Profile:
    """A profile whose axis ``trial`` counts from 0 to ``trials`` - 1.

    Raises:
        UsageError: No such axis.
    """
    if "trial" not in profile.matrix:
        raise UsageError(
            "nothing is searched: the profile has no axis 'trial'",
            where=where,
            next_step="kit run EXP, or an experiment with steps of the kind tampering/trial",
        )
    return replace(profile, matrix={**profile.matrix, "trial": list(range(trials))})


def kept_only(profile: Profile, kept: Sequence[str], *, where: str) -> Profile:
    """A profile with some values of an axis alone.

    Args:
        profile: Whose matrix is cut.
        kept: ``axis=id`` or ``axis=id,id`` each.
        where: For messages.

    Raises:
        UsageError: No such axis, or no such value.
    """
    matrix = dict(profile.matrix)
    for text in kept:
        axis, _, ids = text.partition("=")
        known = {axis_id(value): value for value in matrix.get(axis, [])}
        unknown = [id for id in ids.split(",") if id not in known]
        if unknown:
            raise UsageError(
                f"--only {text}: the axis {axis!r} has no {unknown[0]!r}"
                if known
                else f"--only {text}: there is no axis {axis!r}",
                where=where,
                next_step=f"there is: {', '.join(known or matrix)}",
            )
        matrix[axis] = [known[id] for id in ids.split(",")]
    return replace(profile, matrix=matrix)
