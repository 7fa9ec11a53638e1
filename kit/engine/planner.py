"""From a manifest to a plan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from kit.engine.batch import fit
from kit.engine.environment import Machine, environment_class
from kit.engine.keys import instance_key
from kit.engine.matrix import Point, expand, resolve, resolve_matrix, shift_seeds
from kit.engine.params import Override, parse_override, typed
from kit.engine.registry import Registry, StepKind
from kit.engine.wiring import check, in_order
from kit.errors import InvalidInput, KitError, UsageError
from kit.manifest.axes import axis_id
from kit.manifest.catalog import profile_of, steps_of
from kit.manifest.pin_types import Pin
from kit.manifest.types import (
    InputRef,
    Manifest,
    ModelSource,
    Profile,
    Resources,
    Sourced,
    StepSpec,
)
from kit.results.plan import ModelUse, PinUse, Plan, StepInstance, StepUse


class PinDigests(Protocol):
    """What planning needs of the pin store."""

    def digest(self, id: str) -> str:
        """Digest over the pin's files; no file of a remote pin has to be present."""
        ...


def make_plan(
    manifest: Manifest,
    profile_name: str,
    *,
    pins: Mapping[str, Pin],
    digests: PinDigests,
    registry: Registry,
    machine: Machine,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    rehearsal: bool = False,
    gpus: int | None = None,
) -> Plan:
    """Expand the manifest at a profile into step instances with keys.

    Args:
        manifest: The experiment.
        profile_name: At which profile.
        pins: Pin id -> pin.
        digests: The pin store.
        registry: Step kinds.
        machine: What the plan is for.
        overrides: ``step.param=value`` each.
        seed: Moves all seeds of the matrix.
        rehearsal: Stand-ins take the place of inputs.
        gpus: GPUs for steps that share a batch among several; their split is solved again.

    Raises:
        UsageError: Unknown profile, step or parameter in what the user typed.
        InvalidInput: The manifest does not fit the registered kinds.
        Preflight: A published batch cannot be shared evenly by the GPUs.
    """
    profile = profile_of(manifest, profile_name)
    check(manifest, profile_name, registry)
    specs = in_order(manifest, profile_name)
    where = f"{manifest.id} ({profile_name})"
    known = {spec.id for spec in specs}
    for step in (*profile.set, *profile.resources):
        if step not in known:
            raise InvalidInput(
                f"the profile sets parameters of {step!r}, which is no step of it", where=where
            )
    matrix = resolve_matrix(profile.matrix, profile.pins, where=where)
    profile = msgspec.structs.replace(profile, matrix=matrix)
    written = profile
    if seed is not None:
        profile = shift_seeds(profile, seed, where=where)
    chosen = [parse_override(text, [spec.id for spec in specs]) for text in overrides]
    builder = _Builder(
        profile, profile_name, manifest.axes, pins, digests, machine, rehearsal, where, gpus
    )
    for spec in specs:
        kind = registry.get(spec.kind, where=f"{where}, step {spec.id!r}")
        builder.add(
            spec,
            kind,
            expand(profile.matrix, spec.each, profile.exclude, where=f"{where}, step {spec.id!r}"),
            [override for override in chosen if override.step == spec.id],
        )
    results = builder.by_step.get(manifest.results, [])
    if len(results) != 1:
        raise InvalidInput(
            f"the results step {manifest.results!r} has {len(results)} instances, not one",
            where=where,
            next_step="the results step must exist in the profile and have no 'each'",
        )
    return Plan(
        experiment=manifest.id,
        version=manifest.version,
        family=manifest.family,
        variant=manifest.variant,
        profile=profile_name,
        scope=profile.scope,
        rehearsal=rehearsal,
        seed=seed,
        overrides=list(overrides),
        modified=bool(overrides) or profile != written,
        notes=[*manifest.notes, *dict.fromkeys(builder.notes)],
        results=results[0].id,
        roles={axis: role for axis, role in manifest.axes.items() if axis in profile.matrix},
        pins=[pins[id] for id in sorted(builder.used_pins)],
        environment={
            "device": "cuda" if any(i.resources.gpus for i in builder.instances) else "cpu",
            "gpu_arch": machine.gpu_arch if machine.gpus else None,
            "batch_invariant": machine.batch_invariant,
            "versions": {k: v for k, v in machine.versions.items() if v is not None},
        },
        instances=builder.instances,
    )


def fraction_overrides(
    manifest: Manifest, profile: str, registry: Registry, fraction: float
) -> list[str]:
    """Overrides that give ``fraction`` to every step whose kind has such a parameter.

    Raises:
        UsageError: No kind of the experiment has it.
        InvalidInput: The manifest's steps do not fit each other.
    """
    check(manifest, profile, registry)
    found = [
        f"{spec.id}.fraction={fraction}"
        for spec in steps_of(manifest, profile).values()
        if "fraction" in registry.get(spec.kind).params.__struct_fields__
    ]
    if not found:
        raise UsageError(
            "--fraction has no effect: no step of this experiment has a parameter 'fraction'",
            where=manifest.id,
            next_step="leave it out, or shorten a step with --set step.param=value",
        )
    return found


class _Builder:
    """Collects instances; remembers per step which instance stands at which point."""

    def __init__(
        self,
        profile: Profile,
        profile_name: str,
        roles: Mapping[str, str],
        pins: Mapping[str, Pin],
        digests: PinDigests,
        machine: Machine,
        rehearsal: bool,
        where: str,
        gpus: int | None = None,
    ) -> None:
        self.gpus, self.roles = gpus, roles
        self.notes: list[str] = []
        self.profile, self.profile_name = profile, profile_name
        self.pins, self.digests = pins, digests
        self.machine, self.rehearsal, self.where = machine, rehearsal, where
        self.instances: list[StepInstance] = []
        self.by_step: dict[str, list[StepInstance]] = {}
        self.by_id: dict[str, StepInstance] = {}
        self.used_pins: dict[str, str] = {}
        self._written: dict[str, ModelUse] = {}
        self._points: dict[str, list[Point]] = {}
        self._each: dict[str, list[str]] = {}
        self._groups: dict[tuple[str, tuple[str, ...]], dict[tuple[str, ...], list[int]]] = {}

    def add(
        self, spec: StepSpec, kind: StepKind, points: list[Point], overrides: list[Override]
    ) -> None:
        """Add all instances of one step."""
        where = f"{self.where}, step {spec.id!r}"
        written = {
            name: value.value if isinstance(value, Sourced) else value
            for name, value in self.profile.set.get(spec.id, {}).items()
        }
        self._each[spec.id], self._points[spec.id] = list(spec.each), points
        self.by_step[spec.id] = [
            self._instance(spec, kind, point, written, overrides, where) for point in points
        ]
        self.instances.extend(self.by_step[spec.id])

    def _instance(
        self,
        spec: StepSpec,
        kind: StepKind,
        point: Point,
        written: Mapping[str, Any],
        overrides: Sequence[Override],
        where: str,
    ) -> StepInstance:
        id = point.instance(spec.id)
        values = {
            name: resolve(value, point.values, self.profile.pins, where=f"{spec.id}.{name}")
            for name, value in written.items()
        }
        struct = typed(kind, values, overrides, step=spec.id)
        resources = self.profile.resources.get(spec.id)
        if resources is None:
            resources = kind.resources(struct, self.profile.gpu)
        resources = self._timed(kind, resources, where)
        struct, resources, note = fit(kind, struct, resources, gpus=self.gpus, where=id)
        if note:
            self.notes.append(note)
        params = msgspec.to_builtins(struct)
        environment = environment_class(
            kind, params, resources, self.machine, rehearsal=self.rehearsal
        )
        inputs = _Inputs()
        unread = kind.unread(struct)
        for name, ref in spec.inputs.items():
            if name not in unread:
                self._input(inputs, spec, kind, name, ref, point, f"{where}, input {name!r}")
        if kind.reads_axes:
            inputs.axes.update(point.values)
        if kind.model is not None:
            inherited = inputs.models.get(kind.model.inherits)
            self._written[id] = ModelUse(
                attributes={
                    **(inherited.attributes if inherited is not None else {}),
                    **kind.model.attributes(struct),
                },
                folder=kind.model.folder,
            )
        made = StepInstance(
            id=id,
            step=spec.id,
            kind=kind.name,
            version=kind.version,
            params=params,
            pins=inputs.pins,
            steps=inputs.steps,
            models=inputs.models,
            axes=point.values,
            roles={axis: self.roles[axis] for axis in sorted(inputs.axes)},
            resources=resources,
            environment=environment,
            outputs=list(kind.outputs),
            launch=kind.launch if resources.world > 1 else "worker",
            intermediate=kind.intermediate,
            canaries=[] if self.rehearsal else list(kind.canaries),
            key="",
        )
        made = msgspec.structs.replace(made, key=instance_key(made, kind, self.by_id, self.pins))
        self.by_id[id] = made
        return made

    def _timed(self, kind: StepKind, resources: Resources, where: str) -> Resources:
        """Needs with the kind's own times for saving where the profile says none."""
        if resources.processes > 1 and (resources.gpus or kind.launch != "torchrun"):
            raise InvalidInput(
                f"{resources.processes} processes: "
                + (
                    "a step on GPUs has one for each"
                    if resources.gpus
                    else f"{kind.name} runs in a single one"
                ),
                where=where,
                next_step="leave 'processes' out of its resources",
            )
        return msgspec.structs.replace(
            resources,
            save_minutes=resources.save_minutes or kind.save_minutes,
            stop_seconds=kind.stop_seconds
            if resources.stop_seconds is None
            else resources.stop_seconds,
        )

    def _input(
        self,
        inputs: _Inputs,
        spec: StepSpec,
        kind: StepKind,
        name: str,
        ref: InputRef,
        point: Point,
        where: str,
    ) -> None:
        """Note what an input means at a point."""
        source, sort = ModelSource(pin=ref.pin, step=ref.step), kind.inputs[name]
        axes: Mapping[str, Any] = point.values
        path: tuple[str | int, ...] = ()
        if ref.model is not None:
            named = resolve(ref.model, axes, self.profile.pins, where=where)
            source, axes = self.profile.models[named], {}
            path = ("profiles", self.profile_name, "models", named, "pin")
        if source.pin is not None:
            id = resolve(source.pin, axes, self.profile.pins, where=where, path=path)
            inputs.pins[name] = self._pin(id, where, path)
            if sort == "model":
                inputs.models[name] = ModelUse(attributes=self.pins[id].attributes)
            return
        assert source.step is not None  # kit.engine.wiring saw to it
        found = self._upstream(spec, source.step, point, source.at)
        if not found:
            raise InvalidInput(
                f"nothing to read: 'exclude' leaves no instance of {source.step!r} for "
                f"{point.instance(spec.id)}",
                where=where,
                next_step="exclude what would read it, too",
            )
        many = sort == "steps"
        inputs.steps[name] = StepUse(instances=[one.id for one in found], many=many)
        if sort == "model":
            (made,) = found
            inputs.models[name] = self._written[made.id]
        elif many or kind.reads_axes:
            inputs.axes.update(axis for one in found for axis in one.axes)

    def _pin(self, id: str, where: str, path: tuple[str | int, ...]) -> PinUse:
        pin = self.pins.get(id)
        if pin is None:
            raise InvalidInput(
                f"there is no pin {id!r}",
                where=where,
                next_step="add it to manifests/pins.yaml",
                path=path,
            )
        if id not in self.used_pins:
            self.used_pins[id] = self._digest(id)
        return PinUse(pin=id, digest=self.used_pins[id])

    def _digest(self, id: str) -> str:
        try:
            return self.digests.digest(id)
        except KitError:
            if self.rehearsal:
                return "stand-in"  # a rehearsal needs no input, not even one that is gone
            raise

    def _upstream(
        self, spec: StepSpec, source: str, point: Point, at: Mapping[str, Any]
    ) -> list[StepInstance]:
        """Instances of ``source`` that agree with this point on the axes both have.

        Args:
            spec: The reader.
            source: Id of the step that is read.
            point: Where the reader is.
            at: Axis -> value of the source, instead of the reader's.
        """
        shared = tuple(axis for axis in self._each[source] if axis in spec.each or axis in at)
        groups = self._groups.get((source, shared))
        if groups is None:
            # Grouped once per pair of steps: a grid of thousands would otherwise be scanned
            # by each of its thousands of readers.
            groups = defaultdict(list)
            for index, other in enumerate(self._points[source]):
                groups[tuple(other.labels[axis] for axis in shared)].append(index)
            self._groups[source, shared] = groups
        wanted = {**point.labels, **{axis: axis_id(value) for axis, value in at.items()}}
        found = groups.get(tuple(wanted[axis] for axis in shared), [])
        return [self.by_step[source][index] for index in found]


@dataclass
class _Inputs:
    """What the inputs of one instance are."""

    pins: dict[str, PinUse] = field(default_factory=dict)
    steps: dict[str, StepUse] = field(default_factory=dict)
    models: dict[str, ModelUse] = field(default_factory=dict)
    axes: set[str] = field(default_factory=set)
    """Axes whose values the function may look at."""
