"""References in manifests: ``${axis}``, ``${axis.field}``, ``${pins.name}``, each a whole string.

The planner replaces them for one combination of axis values; here they are only followed, to find
out which pins a profile needs and whether every reference leads somewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kit.manifest.axes import axis_id, combinations
from kit.manifest.types import AxisValue, InputRef, ModelSource, Profile, StepSpec

_MOST = 200_000
_REFERENCE = re.compile(r"\$\{([^{}]*)\}")


class BadReference(ValueError):
    """A reference that leads nowhere; the message says why."""


def resolve(value: Any, axes: Mapping[str, AxisValue], pins: Mapping[str, str]) -> Any:
    """A value with its references replaced, for one combination of axis values.

    Raises:
        BadReference: Unknown axis, field or pin name, or a reference inside other text.
    """
    if isinstance(value, list):
        return [resolve(item, axes, pins) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    found = _REFERENCE.fullmatch(value)
    if found is None:
        raise BadReference(
            f"{value!r} mixes a reference with other text; it must be the whole string"
        )
    name = found.group(1)
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
    found: dict[str, dict[str, AxisValue]] = {}
    # A value may have all its combinations excluded, which only all axes together show.
    for point in combinations(profile, each if used and profile.exclude else used, limit=_MOST):
        meaning = str(resolve(text, point, profile.pins))
        found.setdefault(meaning, {axis: point[axis] for axis in used if axis in point})
    return found


def pin_ids(source: InputRef, profile: Profile, each: Sequence[str]) -> list[str]:
    """Every pin that an input means in a profile, itself or by the name of a model.

    Raises:
        BadReference: The reference leads nowhere.
    """
    if source.pin is not None:
        return list(meanings(source.pin, profile, each))
    found: dict[str, None] = {}
    for model in models(source, profile, each).values():
        if model.pin is not None:
            found[str(resolve(model.pin, {}, profile.pins))] = None
    return list(found)


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
    found: dict[str, set[str]] = {}
    for name, source in step.inputs.items():
        try:
            named = {model.step for model in models(source, profile, step.each).values()}
        except BadReference:
            named = set()
        found[name] = {id for id in (source.step, *named) if id is not None}
    return found
