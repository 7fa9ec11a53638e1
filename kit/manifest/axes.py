"""Axes of a matrix: what their values are called, what they may be, which combinations exist."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

from kit.manifest.source import PathTuple
from kit.manifest.types import AxisValue, Manifest, ParamValue, Profile, Scalar, Sourced

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


def faults(manifest: Manifest) -> Iterator[tuple[PathTuple, str]]:
    """Axis values and seeds that no library or file system would take, with their places."""
    for name, profile in manifest.profiles.items():
        for axis, values in profile.matrix.items():
            for index, value in enumerate(values):
                path = ("profiles", name, "matrix", axis, index)
                yield from _value_faults(axis, value, path)
        for step, parameters in profile.set.items():
            for parameter, written in parameters.items():
                if parameter == "seed" and (fault := seed_fault(_plain(written))):
                    yield ("profiles", name, "set", step, parameter), fault


def _plain(written: ParamValue | Sourced) -> ParamValue:
    return written.value if isinstance(written, Sourced) else written


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
