"""What the steps of a manifest read from one another: rules that planning and lint share.

Each rule is a function over one profile of a manifest; it yields a :class:`Hit` for every fault.
Planning stops at the first, ``kit validate`` prints them all with file, line and column.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kit.engine.params import parameter_faults
from kit.engine.registry import OWN, Registry, StepKind
from kit.errors import InvalidInput
from kit.manifest.matrix import (
    MOST_POINTS,
    BadReference,
    axis_id,
    combinations,
    meanings,
    pin_ids,
    profile_faults,
    read_steps,
    resolve,
)
from kit.manifest.pin_types import Pin
from kit.manifest.source import Hit, PathTuple, nearest
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
)


@dataclass(frozen=True)
class Use:
    """A manifest at a profile, and what it may name.

    Attributes:
        manifest: The experiment.
        name: The profile's.
        registry: Step kinds.
        pins: Pin id -> pin.
    """

    manifest: Manifest
    name: str
    registry: Registry
    pins: Mapping[str, Pin]

    @cached_property
    def profile(self) -> Profile:
        """The profile itself."""
        return profile_of(self.manifest, self.name)

    @cached_property
    def steps(self) -> dict[str, StepSpec]:
        """The steps that the profile has, by id, in manifest order."""
        return steps_of(self.manifest, self.name)

    @cached_property
    def indexed(self) -> list[tuple[int, StepSpec]]:
        """The same with their places in the manifest."""
        places = {step.id: index for index, step in enumerate(self.manifest.steps)}
        return [(places[id], step) for id, step in self.steps.items()]

    def kind(self, step: StepSpec) -> StepKind | None:
        """The registered kind of a step, or ``None``."""
        return self.registry.get(step.kind) if step.kind in self.registry.names() else None


Rule = Callable[[Use], Iterator[Hit]]


def duplicate_step(use: Use) -> Iterator[Hit]:
    """Step ids are unique."""
    for index, id in duplicates(step.id for step in use.manifest.steps):
        yield Hit(("steps", index, "id"), f"a second step {id!r}")


def duplicates(names: Iterable[str]) -> Iterator[tuple[int, str]]:
    """(index, name) of every repetition of a name."""
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield index, name
        seen.add(name)


def step_kind(use: Use) -> Iterator[Hit]:
    """The kind is registered, in the version the manifest was written for."""
    names = use.registry.names()
    for index, step in use.indexed:
        kind = use.kind(step)
        if kind is None:
            yield Hit(
                ("steps", index, "kind"),
                f"unknown step kind {step.kind!r}",
                nearest(step.kind, names) or f"known kinds: {', '.join(names) or 'none'}; {OWN}",
            )
        elif kind.version != step.version:
            yield Hit(
                ("steps", index, "version"),
                f"the manifest was written for {step.kind} version {step.version}, "
                f"this kit has version {kind.version}",
                "read what changed, then write the new version (and move N if numbers move)",
            )


def unknown_step(use: Use) -> Iterator[Hit]:
    """'set' and 'resources' name steps of the profile."""
    for part, keys in (("set", use.profile.set), ("resources", use.profile.resources)):
        for id in keys:
            if id not in use.steps:
                yield Hit(
                    ("profiles", use.name, part, id),
                    f"profile {use.name!r} has no step {id!r}",
                    nearest(id, use.steps) or f"its steps: {', '.join(use.steps)}",
                    key=True,
                )


def results_step(use: Use) -> Iterator[Hit]:
    """The results step exists in every profile and has one instance."""
    results = use.manifest.results
    if results not in use.steps:
        yield Hit(
            ("results",),
            f"the results step {results!r} is no step of profile {use.name!r}",
            nearest(results, use.steps) or f"steps: {', '.join(use.steps)}",
        )
    for index, step in use.indexed:
        if step.id == results and step.each:
            yield Hit(
                ("steps", index, "each"),
                "the results step has 'each', but there must be one table",
                "collect the instances in a step without 'each'",
            )


def axis_values(use: Use) -> Iterator[Hit]:
    """An axis has values, each with an id of its own; seeds are seeds."""
    for axis, values in use.profile.matrix.items():
        path: PathTuple = ("profiles", use.name, "matrix", axis)
        if not values:
            yield Hit(path, f"axis {axis!r} has no values")
        labels = [_label(value, use.profile) for value in values]
        for index, label in duplicates(labels):
            if label:
                yield Hit((*path, index), f"axis {axis!r} has {label!r} twice")
    for path, fault in profile_faults(use.name, use.profile):
        yield Hit(path, fault, "use a record with a plain id: {id: short-name, value: ...}")


def _label(value: AxisValue, profile: Profile) -> str:
    try:
        return axis_id(value if isinstance(value, dict) else resolve(value, {}, profile.pins))
    except BadReference:
        return ""  # planning reports it, at the value


def axis_known(use: Use) -> Iterator[Hit]:
    """Every axis of 'each' is in the matrix of every profile that has the step."""
    matrix = use.profile.matrix
    for index, step in use.indexed:
        for position, axis in enumerate(step.each):
            path = ("steps", index, "each", position)
            if axis in step.each[:position]:
                yield Hit(path, f"axis {axis!r} twice")
            if axis not in matrix:
                yield Hit(
                    path,
                    f"profile {use.name!r} has no axis {axis!r}",
                    nearest(axis, matrix) or f"its axes: {', '.join(matrix) or 'none'}",
                )
        count = math.prod(len(matrix.get(axis, ())) for axis in step.each)
        if count > MOST_POINTS:
            yield Hit(
                ("steps", index, "each"),
                f"its axes have {count:,} combinations; the limit is {MOST_POINTS:,}",
            )


def axis_role(use: Use) -> Iterator[Hit]:
    """Every axis has a role, and every role an axis."""
    for axis in use.profile.matrix:
        if axis not in use.manifest.axes:
            yield Hit(
                ("profiles", use.name, "matrix", axis),
                f"axis {axis!r} has no role (manifests of kit 0.1.0 gave none)",
                f"add it beside 'steps', 'axes: {{ {axis}: replicate }}' if its values are one "
                "observation each; 'setting' if they are compared, 'group' for tables of their own",
                key=True,
            )
    for axis in use.manifest.axes:
        if not any(axis in profile.matrix for profile in use.manifest.profiles.values()):
            yield Hit(("axes", axis), f"no profile has the axis {axis!r}", key=True)


def exclude(use: Use) -> Iterator[Hit]:
    """Excluded combinations are of axes and values that exist, and leave something."""
    for index, entry in enumerate(use.profile.exclude):
        path: PathTuple = ("profiles", use.name, "exclude", index)
        if not entry:
            yield Hit(path, "an empty combination would exclude everything")
        for axis, value in entry.items():
            yield from _axis_value(axis, value, use.profile.matrix, (*path, axis))
    if use.profile.exclude:
        for index, step in use.indexed:
            points = combinations(use.profile, step.each, limit=MOST_POINTS)
            if step.each and next(points, None) is None:
                yield Hit(
                    ("steps", index, "each"),
                    f"profile {use.name!r}: 'exclude' leaves no combination for step {step.id!r}",
                )


def _axis_value(
    axis: str, value: Scalar, matrix: Mapping[str, list[AxisValue]], path: PathTuple
) -> Iterator[Hit]:
    ids = [axis_id(known) for known in matrix.get(axis, [])]
    if axis not in matrix:
        yield Hit(
            path,
            f"there is no axis {axis!r}",
            nearest(axis, matrix) or f"axes: {', '.join(matrix) or 'none'}",
            key=True,
        )
    elif axis_id(value) not in ids:
        yield Hit(
            path,
            f"axis {axis!r} has no value {axis_id(value)!r}",
            nearest(axis_id(value), ids) or f"its values: {', '.join(ids)}",
        )


def input_source(use: Use) -> Iterator[Hit]:
    """An input has exactly one of pin, step and model, and the step exists where it is needed."""
    for index, step in use.indexed:
        for name, source in step.inputs.items():
            path = ("steps", index, "inputs", name)
            if len(_given(source)) != 1:
                yield Hit(path, f"input {name!r} needs exactly one of 'pin', 'step' and 'model'")
            elif source.step is not None:
                yield from _step_is_there(use, source.step, f"input {name!r}", (*path, "step"))


def _given(source: InputRef) -> list[str]:
    return [key for key in ("pin", "step", "model") if getattr(source, key) is not None]


def _step_is_there(use: Use, id: str, what: str, path: PathTuple) -> Iterator[Hit]:
    known = {step.id for step in use.manifest.steps}
    if id not in known:
        yield Hit(
            path,
            f"there is no step {id!r}",
            nearest(id, known) or f"steps: {', '.join(sorted(known))}",
        )
    elif id not in use.steps:
        yield Hit(path, f"{what}: profile {use.name!r} does not have step {id!r}")


def kind_inputs(use: Use) -> Iterator[Hit]:
    """Inputs are the ones the kind declares, of the right sort."""
    for index, step in use.indexed:
        kind, path = use.kind(step), ("steps", index, "inputs")
        if kind is None:
            continue
        written = use.manifest.steps[index].inputs
        for name in sorted(kind.inputs.keys() - kind.optional):
            if name not in written:
                yield Hit(path, f"{step.kind} needs the input {name!r} ({kind.inputs[name]})")
            elif written[name].profiles is not None:
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
            elif len(_given(source)) == 1:  # else reported as "input-source"
                yield from _sort(use, step, kind.inputs[name], name, source, (*path, name))


_TAKES = {"pin": ("pin",), "step": ("step",), "steps": ("step",), "model": ("pin", "step", "model")}
"""Sort of an input -> how a manifest may give it."""


def _sort(
    use: Use, step: StepSpec, sort: str, name: str, source: InputRef, path: PathTuple
) -> Iterator[Hit]:
    if _given(source)[0] not in _TAKES[sort]:
        yield Hit(
            path,
            f"input {name!r} of {step.kind} is a {sort}, not what stands here",
            f"it must name exactly one {' or '.join(_TAKES[sort])}",
        )
    elif source.step in use.steps and sort != "steps":
        read = use.steps[source.step]
        yield from _single(step, name, read, {}, path)
        if sort == "model":
            yield from _writes_model(use, read, (*path, "step"))


def _single(
    step: StepSpec, name: str, read: StepSpec, at: Mapping[str, Any], path: PathTuple
) -> Iterator[Hit]:
    """One instance of the source, not several: it runs over no axis that the reader lacks."""
    further = [axis for axis in read.each if axis not in step.each and axis not in at]
    if further:
        axes = ", ".join(further)
        yield Hit(
            path,
            f"input {name!r} is one instance, but {read.id!r} also runs over {axes}",
            f"add {axes} to 'each' of {step.id!r}",
        )


def _writes_model(use: Use, source: StepSpec, path: PathTuple) -> Iterator[Hit]:
    kind = use.kind(source)
    if kind is not None and kind.model is None:
        makers = [name for name in use.registry.names() if use.registry.get(name).model is not None]
        yield Hit(
            path,
            f"step {source.id!r} ({source.kind}) writes no model",
            f"kinds that do: {', '.join(makers) or 'none is registered'}",
        )


def models(use: Use) -> Iterator[Hit]:
    """A profile's models are pins or steps that write one, and inputs name them."""
    for name, model in use.profile.models.items():
        path: PathTuple = ("profiles", use.name, "models", name)
        if (model.pin is None) == (model.step is None):
            yield Hit(path, f"model {name!r} needs exactly one of 'pin' and 'step'")
        elif model.step is None:
            if model.at:
                yield Hit((*path, "at"), f"model {name!r} is a pin; 'at' is for steps")
        elif model.step in use.steps:
            yield from _writes_model(use, use.steps[model.step], (*path, "step"))
            yield from _at(model, use.steps[model.step], use.profile, (*path, "at"))
        else:
            yield from _step_is_there(use, model.step, f"model {name!r}", (*path, "step"))
    for index, step in use.indexed:
        for input_name, source in step.inputs.items():
            if source.model is not None:
                path = ("steps", index, "inputs", input_name, "model")
                yield from _named(use, step, input_name, source.model, path)


def _at(model: ModelSource, step: StepSpec, profile: Profile, path: PathTuple) -> Iterator[Hit]:
    for axis, value in model.at.items():
        if axis not in step.each:
            yield Hit(
                (*path, axis),
                f"step {step.id!r} does not run over the axis {axis!r}",
                nearest(axis, step.each) or f"its axes: {', '.join(step.each) or 'none'}",
                key=True,
            )
        else:
            yield from _axis_value(axis, value, profile.matrix, (*path, axis))


def _named(use: Use, step: StepSpec, name: str, text: str, path: PathTuple) -> Iterator[Hit]:
    """Every meaning of an input's ``model`` is a model of the profile, and one instance."""
    profile = use.profile
    try:
        named = meanings(text, profile, step.each)
    except BadReference as error:
        yield Hit(path, f"profile {use.name!r}: {error.what}")
        return
    for id, point in named.items():
        model = profile.models.get(id)
        if model is None:
            # The value of an axis is where such a name was mistyped, if it came from there.
            where: PathTuple = path
            for axis, value in point.items():
                where = ("profiles", use.name, "matrix", axis, profile.matrix[axis].index(value))
            yield Hit(
                where,
                f"profile {use.name!r} has no model {id!r}, which input {name!r} of step "
                f"{step.id!r} reads",
                nearest(id, profile.models) or f"its models: {', '.join(profile.models) or 'none'}",
            )
        elif model.step in use.steps:
            yield from _single(step, name, use.steps[model.step], model.at, path)


def pin_known(use: Use) -> Iterator[Hit]:
    """Pins and references to pins lead to a pin of the catalog."""
    for local, id in use.profile.pins.items():
        if id not in use.pins:
            yield _no_pin(use, id, ("profiles", use.name, "pins", local))
    given: list[tuple[PathTuple, str | None, list[str]]] = [
        (("profiles", use.name, "models", name, "pin"), model.pin, [])
        for name, model in use.profile.models.items()
    ]
    given += [
        (("steps", index, "inputs", name, "pin"), source.pin, step.each)
        for index, step in use.indexed
        for name, source in step.inputs.items()
    ]
    for path, pin, each in given:
        if pin is None:
            continue
        try:
            ids = pin_ids(InputRef(pin=pin), use.profile, each)
        except BadReference as error:
            yield Hit(path, f"profile {use.name!r}: {error.what}")
            continue
        for id in ids:
            if id not in use.pins and id not in use.profile.pins.values():
                yield _no_pin(use, id, path)


def _no_pin(use: Use, id: str, path: PathTuple) -> Hit:
    hint = nearest(id, use.pins) or "add it to manifests/pins.yaml"
    return Hit(path, f"profile {use.name!r}: there is no pin {id!r}", hint)


def cyclic_steps(use: Use) -> Iterator[Hit]:
    """Steps do not wait for each other."""
    _, stuck = _sorted_steps(use)
    if stuck:
        first = next(index for index, step in use.indexed if step in stuck)
        names = ", ".join(step.id for step in stuck)
        yield Hit(("steps", first), f"steps wait for each other: {names}")


def _sorted_steps(use: Use) -> tuple[list[StepSpec], list[StepSpec]]:
    """The steps in an order to run in, and those that wait for each other."""
    waiting = list(use.steps.values())
    reads = {
        step.id: set().union(*read_steps(step, use.profile).values()) & use.steps.keys()
        for step in waiting
    }
    ordered: list[StepSpec] = []
    done: set[str] = set()
    while ready := next((step for step in waiting if reads[step.id] <= done), None):
        ordered.append(ready)
        done.add(ready.id)
        waiting.remove(ready)
    return ordered, waiting


def parameters(use: Use) -> Iterator[Hit]:
    """Parameters are the kind's, complete, and of its types for every combination of axes."""
    for step in use.steps.values():
        kind = use.kind(step)
        if kind is not None:
            yield from parameter_faults(use.name, use.profile, step, kind)


RULES: dict[str, Rule] = {
    "duplicate-step": duplicate_step,
    "step-kind": step_kind,
    "unknown-step": unknown_step,
    "results-step": results_step,
    "axis-values": axis_values,
    "axis-known": axis_known,
    "axis-role": axis_role,
    "exclude": exclude,
    "input-source": input_source,
    "kind-inputs": kind_inputs,
    "models": models,
    "pin-known": pin_known,
    "cyclic-steps": cyclic_steps,
    "parameters": parameters,
}
"""Rule id of lint -> rule, in the order in which planning asks them."""


def check(use: Use) -> list[StepSpec]:
    """The steps of a profile, each after what it reads, if they fit each other.

    Raises:
        InvalidInput: The first fault, with its place in the document.
    """
    for rule in RULES.values():
        for hit in rule(use):
            raise InvalidInput(hit.message, next_step=hit.next_step, path=hit.path)
    return _sorted_steps(use)[0]
