"""Rules over a manifest: those of planning, and what planning does not ask."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from kit.engine.wiring import RULES, Rule, Use, duplicates
from kit.errors import KitError
from kit.lint.core import MANIFEST, ManifestContext
from kit.manifest.matrix import BadReference, models, pin_ids, read_steps
from kit.manifest.source import Hit, PathTuple, nearest
from kit.manifest.types import Manifest, Sourced, StepSpec

_PLACEHOLDERS = {"todo", "tbd", "n/a", "none", "unknown", "...", "xxx"}


def _over_profiles(rule: Rule) -> Callable[[ManifestContext], Iterator[Hit]]:
    """A rule over a profile, asked for every one; what two profiles share is said once."""

    def check(context: ManifestContext) -> Iterator[Hit]:
        yield from dict.fromkeys(hit for use in context.uses() for hit in rule(use))

    check.__doc__ = rule.__doc__
    return check


for _id, _rule in RULES.items():
    MANIFEST.rule(_id)(_over_profiles(_rule))


@MANIFEST.rule("pin-needs")
def pin_needs(context: ManifestContext) -> Iterator[Hit]:
    """A pin declares the attributes that the step kinds reading it need."""
    hits = (hit for use in context.uses() for hit in _lacking(use))
    yield from dict.fromkeys(hits)


def _lacking(use: Use) -> Iterator[Hit]:
    for index, step in use.indexed:
        kind = use.kind(step)
        for name, wanted in kind.needs.items() if kind is not None else ():
            for id in _read_pins(use, step, name):
                lacking = [a for a in wanted if id in use.pins and a not in use.pins[id].attributes]
                if lacking:
                    yield Hit(
                        ("steps", index, "inputs", name),
                        f"{step.kind} needs {lacking[0]!r} of its {name}, and the pin {id!r} "
                        "declares none",
                        f"add it to the pin's attributes; kit kinds {step.kind}",
                    )


def _read_pins(use: Use, step: StepSpec, name: str) -> list[str]:
    """Ids of the pins that an input means directly or by the name of a model."""
    try:
        return pin_ids(step.inputs[name], use.profile, step.each) if name in step.inputs else []
    except BadReference:
        return []  # reported as "models" or "pin-known"


@MANIFEST.rule("duplicate-document")
def duplicate_document(context: ManifestContext) -> Iterator[Hit]:
    """Document ids are unique."""
    for index, id in duplicates(document.id for document in context.manifest.documents):
        yield Hit(("documents", index, "id"), f"a second document {id!r}")


@MANIFEST.rule("step-profiles")
def step_profiles(context: ManifestContext) -> Iterator[Hit]:
    """A step names profiles that exist."""
    for index, step in enumerate(context.manifest.steps):
        for position, profile in enumerate(step.profiles or []):
            if profile not in context.manifest.profiles:
                yield Hit(
                    ("steps", index, "profiles", position),
                    f"the manifest has no profile {profile!r}",
                )
        if step.profiles == []:
            yield Hit(("steps", index, "profiles"), f"step {step.id!r} is in no profile")


@MANIFEST.rule("no-profile")
def no_profile(context: ManifestContext) -> Iterator[Hit]:
    """A manifest has a profile."""
    if not context.manifest.profiles:
        yield Hit(("profiles",), "no profile: there is nothing to run")


@MANIFEST.rule("unused-step", "warning")
def unused_step(context: ManifestContext) -> Iterator[Hit]:
    """Every step leads to the results."""
    reads: dict[str, set[str]] = {}
    for use in context.uses():
        for id, step in use.steps.items():
            reads.setdefault(id, set()).update(*read_steps(step, use.profile).values())
    reached: set[str] = set()
    open_ends = [context.manifest.results]
    while open_ends:
        id = open_ends.pop()
        if id not in reached and id in reads:
            reached.add(id)
            open_ends += reads[id]
    for index, step in enumerate(context.manifest.steps):
        if step.id not in reached:
            yield Hit(
                ("steps", index, "id"), f"nothing that leads to the results reads {step.id!r}"
            )


@MANIFEST.rule("unused-axis", "warning")
def unused_axis(context: ManifestContext) -> Iterator[Hit]:
    """Every axis is used by a step."""
    for use in context.uses():
        used = {axis for step in use.steps.values() for axis in step.each}
        for axis in use.profile.matrix.keys() - used:
            path = ("profiles", use.name, "matrix", axis)
            yield Hit(path, f"no step runs over axis {axis!r}", key=True)


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
    for use in context.uses():
        read: set[str] = set()
        for step in use.steps.values():
            for source in step.inputs.values():
                with contextlib.suppress(BadReference):
                    read.update(models(source, use.profile, step.each))
        for model in use.profile.models:
            if model not in read:
                path = ("profiles", use.name, "models", model)
                yield Hit(
                    path, f"no step of profile {use.name!r} reads the model {model!r}", key=True
                )


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


def _source_text(text: str, path: PathTuple) -> Iterator[Hit]:
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


@MANIFEST.rule("file-name")
def file_name(context: ManifestContext) -> Iterator[Hit]:
    """A manifest of the repository is ``manifests/<family>/<id>.yaml``."""
    path = context.loaded.source.path.resolve()
    if path not in [file.resolve() for file in context.catalog.files().values()]:
        return
    manifest = context.manifest
    if path.stem != manifest.id:
        yield Hit(("id",), f"the file is named {path.stem!r}, the experiment {manifest.id!r}")
    if path.parent.name != manifest.family:
        yield Hit(
            ("family",), f"the folder is {path.parent.name!r}, the family {manifest.family!r}"
        )


@MANIFEST.rule("full-size")
def full_size(context: ManifestContext) -> Iterator[Hit]:
    """The experiment at the published size exists, and its own size is published."""
    named, ids = context.manifest.full_size, context.catalog.ids()
    if named is None:
        return
    if named not in ids:
        yield Hit(("full_size",), f"there is no experiment {named!r}", nearest(named, ids))
    elif not any(profile.gpu for profile in context.catalog.manifest(named).profiles.values()):
        yield Hit(("full_size",), f"no profile of {named!r} needs a GPU")


@MANIFEST.rule("counterpart")
def counterpart(context: ManifestContext) -> Iterator[Hit]:
    """The counterpart exists, is the other variant, and points back."""
    manifest = context.manifest
    other_id = manifest.counterpart
    if other_id is None:
        return
    ids = context.catalog.ids()
    if other_id not in ids:
        yield Hit(("counterpart",), f"there is no experiment {other_id!r}", nearest(other_id, ids))
        return
    try:
        other = context.catalog.manifest(other_id)
    except KitError as error:
        yield Hit(("counterpart",), f"the counterpart cannot be read: {error}")
        return
    if other.counterpart != manifest.id:
        yield Hit(
            ("counterpart",),
            f"{other_id!r} does not point back: its counterpart is {other.counterpart!r}",
        )
    if other.variant == manifest.variant:
        yield Hit(("counterpart",), f"{other_id!r} is {other.variant} too, not the other variant")
    if other.family != manifest.family:
        yield Hit(("counterpart",), f"{other_id!r} is of another family, {other.family!r}")


@MANIFEST.rule("no-expectation", "info")
def no_expectation(context: ManifestContext) -> Iterator[Hit]:
    """Every profile has numbers to compare with."""
    path = context.loaded.source.path
    for profile in context.manifest.profiles:
        if context.catalog.expectation_path(path, profile) is None:
            yield Hit(
                ("profiles", profile),
                f"no expectation for profile {profile!r}: a run can be made but not verified",
                key=True,
            )
