"""Rules over a manifest's profiles: axes, pins, parameters and where their values come from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec

from kit.engine.registry import StepKind
from kit.engine.wiring import Hit
from kit.lint.core import MANIFEST, ManifestContext, duplicates
from kit.lint.steps import kind_of
from kit.manifest.axes import axis_id, combinations
from kit.manifest.catalog import steps_of
from kit.manifest.names import nearest
from kit.manifest.refs import BadReference, models, pin_ids, resolve
from kit.manifest.types import InputRef, Manifest, Profile, Sourced, StepSpec

_PLACEHOLDERS = {"todo", "tbd", "n/a", "none", "unknown", "...", "xxx"}


@MANIFEST.rule("axis-values")
def axis_values(context: ManifestContext) -> Iterator[Hit]:
    """An axis has values, each with an id of its own."""
    for name, profile in context.manifest.profiles.items():
        for axis, values in profile.matrix.items():
            path = ("profiles", name, "matrix", axis)
            if not values:
                yield Hit(path, f"axis {axis!r} has no values")
            for index, label in duplicates(axis_id(value) for value in values):
                if label:
                    yield Hit((*path, index), f"axis {axis!r} has {label!r} twice")


@MANIFEST.rule("unused-axis", "warning")
def unused_axis(context: ManifestContext) -> Iterator[Hit]:
    """Every axis is used by a step."""
    for name, profile in context.manifest.profiles.items():
        steps = steps_of(context.manifest, name).values()
        used = {axis for step in steps for axis in step.each}
        for axis in profile.matrix:
            if axis not in used:
                yield Hit(
                    ("profiles", name, "matrix", axis), f"no step runs over axis {axis!r}", key=True
                )


@MANIFEST.rule("pin-known")
def pin_known(context: ManifestContext) -> Iterator[Hit]:
    """Pins and references to pins lead to a pin of the catalog, in every profile."""
    for name, profile in context.manifest.profiles.items():
        for local, id in profile.pins.items():
            if id not in context.pins:
                yield Hit(("profiles", name, "pins", local), *_no_pin(id, context))
        for model, source in profile.models.items():
            yield from _pin_of(
                context,
                name,
                profile,
                InputRef(pin=source.pin),
                [],
                ("profiles", name, "models", model, "pin"),
            )
        steps = steps_of(context.manifest, name)
        for index, step in enumerate(context.manifest.steps):
            if step.id in steps:
                yield from _input_pins(context, name, profile, index, steps[step.id])


def _input_pins(
    context: ManifestContext, name: str, profile: Profile, index: int, step: StepSpec
) -> Iterator[Hit]:
    for input_name, source in step.inputs.items():
        if source.pin is not None:
            path = ("steps", index, "inputs", input_name, "pin")
            yield from _pin_of(context, name, profile, source, step.each, path)


def _pin_of(
    context: ManifestContext,
    name: str,
    profile: Profile,
    source: InputRef,
    each: list[str],
    path: tuple[str | int, ...],
) -> Iterator[Hit]:
    try:
        ids = pin_ids(source, profile, each)
    except BadReference as error:
        yield Hit(path, f"profile {name!r}: {error}")
        return
    for id in ids:
        if id not in context.pins and id not in profile.pins.values():
            message, hint = _no_pin(id, context)
            yield Hit(path, f"profile {name!r}: {message}", hint)


def _no_pin(id: str, context: ManifestContext) -> tuple[str, str]:
    return f"there is no pin {id!r}", nearest(id, context.pins) or "add it to manifests/pins.yaml"


@MANIFEST.rule("unused-pin-name", "warning")
def unused_pin_name(context: ManifestContext) -> Iterator[Hit]:
    """Every local pin name of a profile is referred to."""
    text = msgspec.json.encode(context.manifest).decode()
    for name, profile in context.manifest.profiles.items():
        for local in profile.pins:
            if f"${{pins.{local}}}" not in text:
                path = ("profiles", name, "pins", local)
                yield Hit(path, f"nothing refers to ${{pins.{local}}}", key=True)


@MANIFEST.rule("unused-model", "warning")
def unused_model(context: ManifestContext) -> Iterator[Hit]:
    """Every model of a profile is read by a step of it."""
    for name, profile in context.manifest.profiles.items():
        read: set[str] = set()
        for step in steps_of(context.manifest, name).values():
            for source in step.inputs.values():
                with contextlib.suppress(BadReference):
                    read.update(models(source, profile, step.each))
        for model in profile.models:
            if model not in read:
                path = ("profiles", name, "models", model)
                yield Hit(path, f"no step of profile {name!r} reads the model {model!r}", key=True)


@MANIFEST.rule("unknown-step")
def unknown_step(context: ManifestContext) -> Iterator[Hit]:
    """'set' and 'resources' name steps of the profile."""
    for name, profile in context.manifest.profiles.items():
        steps = steps_of(context.manifest, name)
        for part, keys in (("set", profile.set), ("resources", profile.resources)):
            for id in keys:
                if id not in steps:
                    yield Hit(
                        ("profiles", name, part, id),
                        f"profile {name!r} has no step {id!r}",
                        nearest(id, steps) or f"its steps: {', '.join(steps)}",
                        key=True,
                    )


@MANIFEST.rule("parameters")
def parameters(context: ManifestContext) -> Iterator[Hit]:
    """Parameters are the kind's, complete, and of its types for every combination of axes."""
    for name, profile in context.manifest.profiles.items():
        for id, step in steps_of(context.manifest, name).items():
            kind = kind_of(context, step)
            if kind is not None:
                path = ("profiles", name, "set", id)
                yield from _parameters(profile, step, kind, path)


def _parameters(
    profile: Profile, step: StepSpec, kind: StepKind, path: tuple[str | int, ...]
) -> Iterator[Hit]:
    written = {
        name: value.value if isinstance(value, Sourced) else value
        for name, value in profile.set.get(step.id, {}).items()
    }
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind.params)}
    missing = [name for name, field in fields.items() if field.required and name not in written]
    for name in missing:
        yield Hit(path, f"step {step.id!r} needs the parameter {name!r} of {kind.name}")
    wrong = False
    for name, value in written.items():
        if name not in fields:
            wrong = True
            yield Hit(
                (*path, name),
                f"{kind.name} has no parameter {name!r}",
                nearest(name, fields) or f"parameters: {', '.join(fields) or 'none'}",
                key=True,
            )
        elif problem := _problem(profile, step, value, fields[name].type):
            wrong = True
            yield Hit((*path, name), f"{name}: {problem}")
    if not wrong and not missing:
        problem = _problem(profile, step, written, kind.params)
        if problem:
            yield Hit(path, f"parameters of {step.id!r}: {problem}")


def _problem(profile: Profile, step: StepSpec, value: Any, wanted: Any) -> str:
    """Why a value (or a dict of values) does not convert, for the first combination where so."""
    text = msgspec.json.encode(value).decode()
    used = [axis for axis in step.each if f"${{{axis}" in text]
    first = {axis: profile.matrix[axis][0] for axis in step.each if profile.matrix.get(axis)}
    for chosen in combinations(profile, used):
        point = first | chosen  # a message about an axis names all those of the step
        try:
            if isinstance(value, dict):
                given: Any = {k: resolve(v, point, profile.pins) for k, v in value.items()}
            else:
                given = resolve(value, point, profile.pins)
            msgspec.convert(given, wanted, strict=True)
        except BadReference as error:
            return str(error)
        except (msgspec.ValidationError, ValueError, TypeError) as error:
            at = ", ".join(f"{axis}={axis_id(v)}" for axis, v in chosen.items())
            return f"{error} ({at})" if at else str(error)
    return ""


@MANIFEST.rule("source")
def source(context: ManifestContext) -> Iterator[Hit]:
    """Every value of a profile that is compared with published numbers says where it comes from."""
    for name, step, parameter, value in _published_values(context.manifest):
        path = ("profiles", name, "set", step, parameter)
        if isinstance(value, Sourced):
            yield from _source_text(value.source, (*path, "source"))
        elif not (isinstance(value, str) and value.startswith("${")):
            yield Hit(
                path,
                f"{step}.{parameter} has no source",
                f"write {{value: {value}, source: 'document, place'}} "
                "or source: 'unspecified: why this value'",
            )


def _published_values(manifest: Manifest) -> Iterator[tuple[str, str, str, Any]]:
    """Profile, step, parameter and value, of profiles that are compared with published numbers."""
    for name, profile in manifest.profiles.items():
        if profile.compares == "published":
            for step, values in profile.set.items():
                for parameter, value in values.items():
                    yield name, step, parameter, value


def _source_text(text: str, path: tuple[str | int, ...]) -> Iterator[Hit]:
    said = text.strip().lower()
    if said in _PLACEHOLDERS or not any(character.isalnum() for character in said):
        yield Hit(path, f"{text!r} is not a source")
    if said.startswith("unspecified") and not said.removeprefix("unspecified").strip(" :."):
        yield Hit(path, "'unspecified' needs a reason", "write 'unspecified: why this value'")


@MANIFEST.rule("source-document", "info")
def source_document(context: ManifestContext) -> Iterator[Hit]:
    """A source names one of the manifest's documents, or says unspecified."""
    ids = [document.id for document in context.manifest.documents]
    for name, step, parameter, value in _published_values(context.manifest):
        if isinstance(value, Sourced) and not value.source.strip().lower().startswith(
            ("unspecified", *ids)
        ):
            yield Hit(
                ("profiles", name, "set", step, parameter, "source"),
                f"{value.source!r} names none of the documents {', '.join(ids)}",
            )
