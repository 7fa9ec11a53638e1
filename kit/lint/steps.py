"""Rules over a manifest's steps: ids, order, kinds, inputs."""

from __future__ import annotations

from collections.abc import Iterator

from kit.engine.registry import OWN, StepKind
from kit.lint.core import MANIFEST, Hit, ManifestContext, duplicates
from kit.manifest.catalog import steps_of
from kit.manifest.names import nearest
from kit.manifest.types import InputRef, Manifest, StepSpec


def kind_of(context: ManifestContext, step: StepSpec) -> StepKind | None:
    """The registered kind of a step, or ``None``."""
    known = step.kind in context.registry.names()
    return context.registry.get(step.kind) if known else None


@MANIFEST.rule("duplicate-step")
def duplicate_step(context: ManifestContext) -> Iterator[Hit]:
    """Step ids are unique."""
    for index, id in duplicates(step.id for step in context.manifest.steps):
        yield Hit(("steps", index, "id"), f"a second step {id!r}")


@MANIFEST.rule("duplicate-document")
def duplicate_document(context: ManifestContext) -> Iterator[Hit]:
    """Document ids are unique."""
    for index, id in duplicates(document.id for document in context.manifest.documents):
        yield Hit(("documents", index, "id"), f"a second document {id!r}")


@MANIFEST.rule("step-profiles")
def step_profiles(context: ManifestContext) -> Iterator[Hit]:
    """A step names profiles that exist."""
    for index, step in enumerate(context.manifest.steps):
        for place, profile in enumerate(step.profiles or []):
            if profile not in context.manifest.profiles:
                yield Hit(
                    ("steps", index, "profiles", place), f"the manifest has no profile {profile!r}"
                )
        if step.profiles == []:
            yield Hit(("steps", index, "profiles"), f"step {step.id!r} is in no profile")


@MANIFEST.rule("no-profile")
def no_profile(context: ManifestContext) -> Iterator[Hit]:
    """A manifest has a profile."""
    if not context.manifest.profiles:
        yield Hit(("profiles",), "no profile: there is nothing to run")


@MANIFEST.rule("results-step")
def results_step(context: ManifestContext) -> Iterator[Hit]:
    """The results step exists in every profile and has one instance."""
    manifest = context.manifest
    for profile in manifest.profiles:
        steps = steps_of(manifest, profile)
        if manifest.results not in steps:
            yield Hit(
                ("results",),
                f"the results step {manifest.results!r} is no step of profile {profile!r}",
                nearest(manifest.results, steps) or f"steps: {', '.join(steps)}",
            )
        elif steps[manifest.results].each:
            index = list(manifest.steps).index(steps[manifest.results])
            yield Hit(
                ("steps", index, "each"),
                "the results step has 'each', but there must be one table",
                "collect the instances in a step without 'each'",
            )
            return


@MANIFEST.rule("input-source")
def input_source(context: ManifestContext) -> Iterator[Hit]:
    """An input has exactly one of pin and step, and the step exists wherever it is needed."""
    manifest = context.manifest
    known = {step.id for step in manifest.steps}
    for index, step in enumerate(manifest.steps):
        for name, source in step.inputs.items():
            path = ("steps", index, "inputs", name)
            if (source.pin is None) == (source.step is None):
                yield Hit(path, f"input {name!r} needs exactly one of 'pin' and 'step'")
            elif source.step is not None and source.step not in known:
                yield Hit(
                    (*path, "step"),
                    f"there is no step {source.step!r}",
                    nearest(source.step, known) or f"steps: {', '.join(sorted(known))}",
                )
            elif source.step is not None:
                yield from _same_profiles(manifest, step, name, source.step, path)


def _same_profiles(
    manifest: Manifest, step: StepSpec, name: str, source: str, path: tuple[str | int, ...]
) -> Iterator[Hit]:
    for profile in manifest.profiles:
        steps = steps_of(manifest, profile)
        if step.id in steps and name in steps[step.id].inputs and source not in steps:
            yield Hit(
                (*path, "step"),
                f"input {name!r}: profile {profile!r} does not have step {source!r}",
            )


@MANIFEST.rule("cyclic-steps")
def cyclic_steps(context: ManifestContext) -> Iterator[Hit]:
    """Steps do not wait for each other."""
    steps = list(context.manifest.steps)
    waiting = {step.id for step in steps}
    while True:
        ready = {
            step.id
            for step in steps
            if step.id in waiting
            and not any(source.step in waiting for source in step.inputs.values())
        }
        if not ready:
            break
        waiting -= ready
    if waiting:
        first = next(index for index, step in enumerate(steps) if step.id in waiting)
        names = [step.id for step in steps if step.id in waiting]
        yield Hit(("steps", first), f"steps wait for each other: {', '.join(names)}")


@MANIFEST.rule("unused-step", "warning")
def unused_step(context: ManifestContext) -> Iterator[Hit]:
    """Every step leads to the results."""
    steps = {step.id: step for step in context.manifest.steps}
    reached: set[str] = set()
    open_ends = [context.manifest.results]
    while open_ends:
        id = open_ends.pop()
        if id in reached or id not in steps:
            continue
        reached.add(id)
        open_ends += [s.step for s in steps[id].inputs.values() if s.step is not None]
    for index, step in enumerate(context.manifest.steps):
        if step.id not in reached:
            yield Hit(
                ("steps", index, "id"), f"nothing that leads to the results reads {step.id!r}"
            )


@MANIFEST.rule("step-kind")
def step_kind(context: ManifestContext) -> Iterator[Hit]:
    """The kind is registered, in the version the manifest was written for."""
    names = context.registry.names()
    for index, step in enumerate(context.manifest.steps):
        kind = kind_of(context, step)
        if kind is None:
            yield Hit(
                ("steps", index, "kind"),
                f"unknown step kind {step.kind!r}",
                nearest(step.kind, names) or f"known kinds: {', '.join(names) or 'none'}; {OWN}",
            )
        elif kind.version != step.version:
            yield Hit(
                ("steps", index, "version"),
                f"{step.kind} is at version {kind.version}; this was written for {step.version}",
                "read what changed, then write the new version (and move N if numbers move)",
            )


@MANIFEST.rule("kind-inputs")
def kind_inputs(context: ManifestContext) -> Iterator[Hit]:
    """Inputs are the ones the kind declares, of the right sort."""
    for index, step in enumerate(context.manifest.steps):
        kind = kind_of(context, step)
        if kind is None:
            continue
        path = ("steps", index, "inputs")
        for name in sorted(kind.inputs.keys() - kind.optional):
            if name not in step.inputs:
                yield Hit((*path,), f"{step.kind} needs the input {name!r} ({kind.inputs[name]})")
            elif step.inputs[name].profiles is not None:
                yield Hit(
                    (*path, name, "profiles"),
                    f"{step.kind} needs the input {name!r} in every profile",
                    f"optional inputs: {', '.join(sorted(kind.optional)) or 'none'}",
                )
        for name, source in step.inputs.items():
            if name not in kind.inputs:
                yield Hit(
                    (*path, name),
                    f"{step.kind} has no input {name!r}",
                    nearest(name, kind.inputs) or f"inputs: {', '.join(kind.inputs) or 'none'}",
                    key=True,
                )
            else:
                yield from _sort(context.manifest, step, kind, name, source, (*path, name))


def _sort(
    manifest: Manifest,
    step: StepSpec,
    kind: StepKind,
    name: str,
    source: InputRef,
    path: tuple[str | int, ...],
) -> Iterator[Hit]:
    wanted = kind.inputs[name]
    if (wanted == "pin") != (source.pin is not None) and (source.pin is None) != (
        source.step is None
    ):
        yield Hit(path, f"input {name!r} of {step.kind} is a {wanted}, not what stands here")
    if wanted != "step" or source.step is None:
        return
    for other in manifest.steps:
        further = [axis for axis in other.each if axis not in step.each]
        if other.id == source.step and further:
            yield Hit(
                path,
                f"input {name!r} is one instance, but {other.id!r} also runs over "
                f"{', '.join(further)}",
                f"add {', '.join(further)} to 'each' of {step.id!r}",
            )
