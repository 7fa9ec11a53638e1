"""What the steps of a manifest read from one another: rules that planning and lint share.

Each rule is a function over one profile of a manifest; it yields a :class:`Hit` for every fault.
Planning stops at the first, ``kit validate`` prints them all with file, line and column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from kit.engine.matrix import MOST_POINTS
from kit.engine.registry import OWN, Registry
from kit.errors import InvalidInput
from kit.manifest.axes import axis_id, combinations
from kit.manifest.catalog import profile_of, steps_of
from kit.manifest.names import nearest
from kit.manifest.refs import BadReference, meanings, read_steps
from kit.manifest.types import (
    AxisValue,
    InputRef,
    Manifest,
    ModelSource,
    Profile,
    Scalar,
    StepSpec,
)

Level = Literal["error", "warning", "info"]
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Hit:
    """A place and a message.

    Attributes:
        path: Place in the document.
        message: What is wrong, one sentence.
        next_step: What to do.
        level: Instead of the rule's own level.
        key: Point at the key instead of the value.
    """

    path: Path
    message: str
    next_step: str = ""
    level: Level | None = None
    key: bool = False


Rule = Callable[[Manifest, str, Registry], Iterator[Hit]]


def indexed(manifest: Manifest, profile: str) -> list[tuple[int, StepSpec]]:
    """The steps that a profile has, with their places in the manifest; in manifest order."""
    having = steps_of(manifest, profile)
    places = {step.id: index for index, step in enumerate(manifest.steps)}
    return [(places[id], step) for id, step in having.items()]


def duplicate_step(manifest: Manifest, profile: str, registry: Registry) -> Iterator[Hit]:
    """Step ids are unique."""
    seen: set[str] = set()
    for index, step in enumerate(manifest.steps):
        if step.id in seen:
            yield Hit(("steps", index, "id"), f"a second step {step.id!r}")
        seen.add(step.id)


def step_kind(manifest: Manifest, profile: str, registry: Registry) -> Iterator[Hit]:
    """The kind is registered, in the version the manifest was written for."""
    names = registry.names()
    for index, step in indexed(manifest, profile):
        if step.kind not in names:
            yield Hit(
                ("steps", index, "kind"),
                f"unknown step kind {step.kind!r}",
                nearest(step.kind, names) or f"known kinds: {', '.join(names) or 'none'}; {OWN}",
            )
        elif registry.get(step.kind).version != step.version:
            yield Hit(
                ("steps", index, "version"),
                f"the manifest was written for {step.kind} version {step.version}, "
                f"this kit has version {registry.get(step.kind).version}",
                "read what changed, then write the new version (and move N if numbers move)",
            )


def axis_known(manifest: Manifest, profile: str, registry: Registry) -> Iterator[Hit]:
    """Every axis of 'each' is in the matrix of every profile that has the step."""
    matrix = profile_of(manifest, profile).matrix
    for index, step in indexed(manifest, profile):
        for place, axis in enumerate(step.each):
            path = ("steps", index, "each", place)
            if axis in step.each[:place]:
                yield Hit(path, f"axis {axis!r} twice")
            if axis not in matrix:
                yield Hit(
                    path,
                    f"profile {profile!r} has no axis {axis!r}",
                    nearest(axis, matrix) or f"its axes: {', '.join(matrix) or 'none'}",
                )


def axis_role(manifest: Manifest, profile: str, registry: Registry) -> Iterator[Hit]:
    """Every axis has a role, and every role an axis."""
    for axis in profile_of(manifest, profile).matrix:
        if axis not in manifest.axes:
            yield Hit(
                ("profiles", profile, "matrix", axis),
                f"axis {axis!r} has no role (manifests of kit 0.1.0 gave none)",
                f"add it beside 'steps', 'axes: {{ {axis}: replicate }}' if its values are one "
                "observation each; 'setting' if they are compared, 'group' for tables of their own",
                key=True,
            )
    for axis in manifest.axes:
        if not any(axis in one.matrix for one in manifest.profiles.values()):
            yield Hit(("axes", axis), f"no profile has the axis {axis!r}", key=True)


def exclude(manifest: Manifest, profile: str, registry: Registry) -> Iterator[Hit]:
    """Excluded combinations are of axes and values that exist, and leave something."""
    spec = profile_of(manifest, profile)
    for index, entry in enumerate(spec.exclude):
        path: Path = ("profiles", profile, "exclude", index)
        if not entry:
            yield Hit(path, "an empty combination would exclude everything")
        for axis, value in entry.items():
            yield from _axis_value(axis, value, spec.matrix, (*path, axis))
    if spec.exclude:
        for index, step in indexed(manifest, profile):
            if step.each and next(combinations(spec, step.each, limit=MOST_POINTS), None) is None:
                yield Hit(
                    ("steps", index, "each"),
                    f"profile {profile!r}: 'exclude' leaves no combination for step {step.id!r}",
                )


def _axis_value(
    axis: str, value: Scalar, matrix: dict[str, list[AxisValue]], path: Path
) -> Iterator[Hit]:
    ids = [axis_id(one) for one in matrix.get(axis, [])]
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


def input_source(manifest: Manifest, profile: str, registry: Registry) -> Iterator[Hit]:
    """An input has exactly one of pin, step and model, and the step exists where it is needed."""
    known = {step.id for step in manifest.steps}
    here = steps_of(manifest, profile)
    for index, step in indexed(manifest, profile):
        for name, source in step.inputs.items():
            path = ("steps", index, "inputs", name)
            if sum(one is not None for one in (source.pin, source.step, source.model)) != 1:
                yield Hit(path, f"input {name!r} needs exactly one of 'pin', 'step' and 'model'")
            elif source.step is not None:
                yield from _step_is_there(
                    source.step, f"input {name!r}", (*path, "step"), profile, known, here
                )


def _step_is_there(
    id: str, what: str, path: Path, profile: str, known: set[str], here: dict[str, StepSpec]
) -> Iterator[Hit]:
    if id not in known:
        yield Hit(
            path,
            f"there is no step {id!r}",
            nearest(id, known) or f"steps: {', '.join(sorted(known))}",
        )
    elif id not in here:
        yield Hit(path, f"{what}: profile {profile!r} does not have step {id!r}")


def kind_inputs(manifest: Manifest, profile: str, registry: Registry) -> Iterator[Hit]:
    """Inputs are the ones the kind declares, of the right sort."""
    for index, step in indexed(manifest, profile):
        if step.kind not in registry.names():
            continue
        kind, path = registry.get(step.kind), ("steps", index, "inputs")
        written = manifest.steps[index].inputs
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
            else:
                yield from _sort(manifest, profile, registry, step, name, source, (*path, name))


_GIVEN = {"pin": ("pin",), "step": ("step",), "steps": ("step",), "model": ("pin", "step", "model")}
"""Sort of an input -> how a manifest may give it."""


def _sort(
    manifest: Manifest,
    profile: str,
    registry: Registry,
    step: StepSpec,
    name: str,
    source: InputRef,
    path: Path,
) -> Iterator[Hit]:
    sort = registry.get(step.kind).inputs[name]
    given = [key for key in ("pin", "step", "model") if getattr(source, key) is not None]
    if len(given) != 1:
        return  # reported as "input-source"
    if given[0] not in _GIVEN[sort]:
        yield Hit(
            path,
            f"input {name!r} of {step.kind} is a {sort}, not what stands here",
            f"it must name exactly one {' or '.join(_GIVEN[sort])}",
        )
    elif source.step is not None and sort != "steps":
        steps = steps_of(manifest, profile)
        if source.step in steps:
            yield from _single(step, name, source.step, steps, {}, path)
            if sort == "model":
                yield from _writes_model(steps[source.step], registry, (*path, "step"))


def _single(
    step: StepSpec,
    name: str,
    source: str,
    steps: dict[str, StepSpec],
    at: dict[str, object],
    path: Path,
) -> Iterator[Hit]:
    """One instance of the source, not several: it runs over no axis that the reader lacks."""
    further = [axis for axis in steps[source].each if axis not in step.each and axis not in at]
    if further:
        axes = ", ".join(further)
        yield Hit(
            path,
            f"input {name!r} is one instance, but {source!r} also runs over {axes}",
            f"add {axes} to 'each' of {step.id!r}",
        )


def _writes_model(source: StepSpec, registry: Registry, path: Path) -> Iterator[Hit]:
    if source.kind in registry.names() and registry.get(source.kind).model is None:
        makers = [name for name in registry.names() if registry.get(name).model is not None]
        yield Hit(
            path,
            f"step {source.id!r} ({source.kind}) writes no model",
            f"kinds that do: {', '.join(makers) or 'none is registered'}",
        )


def models(manifest: Manifest, profile: str, registry: Registry) -> Iterator[Hit]:
    """A profile's models are pins or steps that write one, and inputs name them."""
    spec, steps = profile_of(manifest, profile), steps_of(manifest, profile)
    known = {step.id for step in manifest.steps}
    for name, model in spec.models.items():
        path: Path = ("profiles", profile, "models", name)
        if (model.pin is None) == (model.step is None):
            yield Hit(path, f"model {name!r} needs exactly one of 'pin' and 'step'")
        elif model.step is None:
            if model.at:
                yield Hit((*path, "at"), f"model {name!r} is a pin; 'at' is for steps")
        elif model.step in steps:
            yield from _writes_model(steps[model.step], registry, (*path, "step"))
            yield from _at(model, steps[model.step], spec, (*path, "at"))
        else:
            yield from _step_is_there(
                model.step, f"model {name!r}", (*path, "step"), profile, known, steps
            )
    for index, step in indexed(manifest, profile):
        for input_name, source in step.inputs.items():
            if source.model is not None:
                path = ("steps", index, "inputs", input_name, "model")
                yield from _named(source.model, input_name, step, spec, profile, steps, path)


def _at(model: ModelSource, step: StepSpec, profile: Profile, path: Path) -> Iterator[Hit]:
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


def _named(
    text: str,
    name: str,
    step: StepSpec,
    spec: Profile,
    profile: str,
    steps: dict[str, StepSpec],
    path: Path,
) -> Iterator[Hit]:
    """Every meaning of an input's ``model`` is a model of the profile, and one instance."""
    try:
        named = meanings(text, spec, step.each)
    except BadReference as error:
        yield Hit(path, f"profile {profile!r}: {error}")
        return
    for id, point in named.items():
        model = spec.models.get(id)
        if model is None:
            # The value of an axis is where such a name was mistyped, if it came from there.
            place: Path = path
            for axis, value in point.items():
                place = ("profiles", profile, "matrix", axis, spec.matrix[axis].index(value))
            yield Hit(
                place,
                f"profile {profile!r} has no model {id!r}, which input {name!r} of step "
                f"{step.id!r} reads",
                nearest(id, spec.models) or f"its models: {', '.join(spec.models) or 'none'}",
            )
        elif model.step in steps:
            assert model.step is not None
            yield from _single(step, name, model.step, steps, dict(model.at), path)


def cyclic_steps(manifest: Manifest, profile: str, registry: Registry) -> Iterator[Hit]:
    """Steps do not wait for each other."""
    _, stuck = _sorted_steps(manifest, profile)
    if stuck:
        first = next(index for index, step in indexed(manifest, profile) if step in stuck)
        names = ", ".join(step.id for step in stuck)
        yield Hit(("steps", first), f"steps wait for each other: {names}")


def in_order(manifest: Manifest, profile: str) -> list[StepSpec]:
    """Steps of the profile so that each comes after what it reads; manifest order otherwise."""
    return _sorted_steps(manifest, profile)[0]


def _sorted_steps(manifest: Manifest, profile: str) -> tuple[list[StepSpec], list[StepSpec]]:
    """The steps in an order to run in, and those that wait for each other."""
    spec = profile_of(manifest, profile)
    waiting = list(steps_of(manifest, profile).values())
    here = {step.id for step in waiting}
    reads = {step.id: set().union(*read_steps(step, spec).values()) & here for step in waiting}
    ordered: list[StepSpec] = []
    done: set[str] = set()
    while waiting:
        ready = next((step for step in waiting if reads[step.id] <= done), None)
        if ready is None:
            break
        ordered.append(ready)
        done.add(ready.id)
        waiting.remove(ready)
    return ordered, waiting


RULES: dict[str, Rule] = {
    "duplicate-step": duplicate_step,
    "step-kind": step_kind,
    "axis-known": axis_known,
    "axis-role": axis_role,
    "exclude": exclude,
    "input-source": input_source,
    "kind-inputs": kind_inputs,
    "models": models,
    "cyclic-steps": cyclic_steps,
}
"""Rule id of lint -> rule, in the order in which planning asks them."""


def check(manifest: Manifest, profile: str, registry: Registry) -> None:
    """Refuse a manifest whose steps do not fit each other at a profile.

    Raises:
        InvalidInput: The first fault, with its place in the document.
    """
    for rule in RULES.values():
        for hit in rule(manifest, profile, registry):
            raise InvalidInput(
                hit.message,
                where=_where(hit.path, manifest, profile),
                next_step=hit.next_step,
                path=hit.path,
            )


def _where(path: Path, manifest: Manifest, profile: str) -> str:
    """A place in words, for manifests that come from no file."""
    where = f"{manifest.id} ({profile})"
    if path[0] == "steps" and isinstance(path[1], int):
        where += f", step {manifest.steps[path[1]].id!r}"
        return where + (f", input {path[3]!r}" if path[2:3] == ("inputs",) and path[3:] else "")
    return f"{where}, {'.'.join(str(key) for key in path[2:])}"
