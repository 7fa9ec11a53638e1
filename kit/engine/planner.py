"""From a manifest to a plan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from kit.engine.batch import fit
from kit.engine.canonical import step_key
from kit.engine.environment import Machine, environment_class
from kit.engine.matrix import Point, expand, resolve, resolve_matrix, shift_seeds
from kit.engine.params import Override, parse_override, typed
from kit.engine.plan import PinUse, Plan, StepInstance, StepUse
from kit.engine.registry import Registry, StepKind
from kit.errors import InvalidInput, KitError, UsageError
from kit.manifest.catalog import steps_of
from kit.manifest.pin_types import Pin
from kit.manifest.types import Manifest, Profile, Sourced, StepSpec


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
    profile = _profile(manifest, profile_name)
    specs = _ordered(manifest, profile_name)
    where = f"{manifest.id} ({profile_name})"
    known = {spec.id for spec in specs}
    for step in (*profile.set, *profile.resources):
        if step not in known:
            raise InvalidInput(
                f"the profile sets parameters of {step!r}, which is no step of it", where=where
            )
    matrix = resolve_matrix(profile.matrix, profile.pins, where=where)
    if seed is not None:
        matrix = shift_seeds(matrix, seed, where=where)
    chosen = [parse_override(text, [spec.id for spec in specs]) for text in overrides]
    builder = _Builder(profile, profile_name, pins, digests, machine, rehearsal, where, gpus)
    for spec in specs:
        kind = registry.get(spec.kind, where=f"{where}, step {spec.id!r}")
        builder.add(
            spec,
            kind,
            expand(matrix, spec.each, where=f"{where}, step {spec.id!r}"),
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
        rehearsal=rehearsal,
        seed=seed,
        overrides=list(overrides),
        modified=bool(overrides) or (seed is not None and matrix != dict(profile.matrix)),
        notes=[*manifest.notes, *dict.fromkeys(builder.notes)],
        results=results[0].id,
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
    """
    found = [
        f"{spec.id}.fraction={fraction}"
        for spec in _ordered(manifest, profile)
        if "fraction" in registry.get(spec.kind).params.__struct_fields__
    ]
    if not found:
        raise UsageError(
            "--fraction has no effect: no step of this experiment has a parameter 'fraction'",
            where=manifest.id,
            next_step="leave it out, or shorten a step with --set step.param=value",
        )
    return found


def _profile(manifest: Manifest, name: str) -> Profile:
    for known, profile in manifest.profiles.items():
        if known == name:
            return profile
    raise UsageError(
        f"experiment {manifest.id!r} has no profile {name!r}",
        next_step=f"profiles: {', '.join(manifest.profiles)}",
    )


def _ordered(manifest: Manifest, profile: str) -> list[StepSpec]:
    """Steps of the profile so that each comes after what it reads; manifest order otherwise."""
    waiting = list(steps_of(manifest, profile).values())
    known = {spec.id for spec in waiting}
    if len(known) < len(waiting):
        ids = [spec.id for spec in waiting]
        twice = next(id for id in ids if ids.count(id) > 1)
        raise InvalidInput(
            f"a second step {twice!r}", where=f"{manifest.id} ({profile}), step {twice!r}"
        )
    for spec in waiting:
        for name, source in spec.inputs.items():
            if source.step is not None and source.step not in known:
                raise InvalidInput(
                    f"input {name!r} comes from {source.step!r}, which this profile does not have",
                    where=f"{manifest.id} ({profile}), step {spec.id!r}",
                    next_step=f"steps: {', '.join(sorted(known))}",
                )
    ordered: list[StepSpec] = []
    done: set[str] = set()
    while waiting:
        ready = [
            spec
            for spec in waiting
            if all(ref.step is None or ref.step in done for ref in spec.inputs.values())
        ]
        if not ready:
            raise InvalidInput(
                f"steps wait for each other: {', '.join(spec.id for spec in waiting)}",
                where=f"{manifest.id} ({profile})",
            )
        ordered.append(ready[0])
        done.add(ready[0].id)
        waiting.remove(ready[0])
    return ordered


class _Builder:
    """Collects instances; remembers per step which instance stands at which point."""

    def __init__(
        self,
        profile: Profile,
        profile_name: str,
        pins: Mapping[str, Pin],
        digests: PinDigests,
        machine: Machine,
        rehearsal: bool,
        where: str,
        gpus: int | None = None,
    ) -> None:
        self.gpus = gpus
        self.notes: list[str] = []
        self.profile, self.profile_name = profile, profile_name
        self.pins, self.digests = pins, digests
        self.machine, self.rehearsal, self.where = machine, rehearsal, where
        self.instances: list[StepInstance] = []
        self.by_step: dict[str, list[StepInstance]] = {}
        self.used_pins: dict[str, str] = {}
        self._points: dict[str, list[Point]] = {}
        self._each: dict[str, list[str]] = {}
        self._groups: dict[tuple[str, tuple[str, ...]], dict[tuple[str, ...], list[int]]] = {}

    def add(
        self, spec: StepSpec, kind: StepKind, points: list[Point], overrides: list[Override]
    ) -> None:
        """Add all instances of one step."""
        where = f"{self.where}, step {spec.id!r}"
        if kind.version != spec.version:
            raise InvalidInput(
                f"the manifest was written for {kind.name} version {spec.version}, "
                f"this kit has version {kind.version}",
                where=where,
                why="the outputs of the two versions differ",
                next_step="check the step's changelog, then update the version in the manifest",
            )
        needed = kind.inputs.keys() - kind.optional
        if not needed <= spec.inputs.keys() <= kind.inputs.keys():
            raise InvalidInput(
                f"{kind.name} takes the inputs {sorted(kind.inputs)} "
                f"(optional: {sorted(kind.optional)}), "
                f"the manifest gives {sorted(spec.inputs)}",
                where=where,
            )
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
            resources = kind.resources(struct, self.profile_name)
        struct, resources, note = fit(kind, struct, resources, gpus=self.gpus, where=id)
        if note:
            self.notes.append(note)
        params = msgspec.to_builtins(struct)
        environment = environment_class(
            kind, params, resources, self.machine, rehearsal=self.rehearsal
        )
        pins: dict[str, PinUse] = {}
        steps: dict[str, StepUse] = {}
        keyed: dict[str, Any] = {}
        unread = kind.unread(struct)
        for name, ref in spec.inputs.items():
            if name in unread:
                continue
            wanted = kind.inputs[name]
            if (ref.pin is None) == (ref.step is None) or (wanted == "pin") != (ref.step is None):
                raise InvalidInput(
                    f"input {name!r} must name exactly one "
                    + ("pin" if wanted == "pin" else "step"),
                    where=where,
                )
            if ref.pin is not None:
                pins[name], keyed[name] = self._pin(ref.pin, point, f"{where}, input {name!r}")
            elif ref.step is not None:
                found = self._upstream(spec, ref.step, point)
                if wanted == "step" and len(found) != 1:
                    raise InvalidInput(
                        f"input {name!r} wants one instance of {ref.step!r}, there are "
                        f"{len(found)}: it runs over axes that {spec.id!r} lacks",
                        where=where,
                        next_step="name these axes in 'each', or use a kind that takes a list",
                    )
                many = wanted == "steps"
                steps[name] = StepUse(instances=[one.id for one in found], many=many)
                keyed[name] = _keyed(found, with_axes=many or kind.reads_axes)
        if kind.reads_axes:
            keyed["axes"] = point.values
        return StepInstance(
            id=id,
            step=spec.id,
            kind=kind.name,
            version=kind.version,
            params=params,
            pins=pins,
            steps=steps,
            axes=point.values,
            resources=resources,
            environment=environment,
            outputs=list(kind.outputs),
            launch=kind.launch,
            key=step_key(kind.name, kind.version, params, keyed, environment),
        )

    def _pin(self, reference: str, point: Point, where: str) -> tuple[PinUse, Any]:
        id = resolve(reference, point.values, self.profile.pins, where=where)
        pin = self.pins.get(id)
        if pin is None:
            raise InvalidInput(
                f"there is no pin {id!r}", where=where, next_step="add it to manifests/pins.yaml"
            )
        if id not in self.used_pins:
            self.used_pins[id] = self._digest(id)
        found = self.used_pins[id]
        # A step reads a pin's attributes (its chat format) as well as its files.
        return PinUse(pin=id, digest=found), [found, pin.attributes] if pin.attributes else found

    def _digest(self, id: str) -> str:
        try:
            return self.digests.digest(id)
        except KitError:
            if self.rehearsal:
                return "stand-in"  # a rehearsal needs no input, not even one that is gone
            raise

    def _upstream(self, spec: StepSpec, source: str, point: Point) -> list[StepInstance]:
        """Instances of ``source`` that agree with this point on the axes both have."""
        shared = tuple(axis for axis in self._each[source] if axis in spec.each)
        groups = self._groups.get((source, shared))
        if groups is None:
            # Grouped once per pair of steps: a grid of thousands would otherwise be scanned
            # by each of its thousands of readers.
            groups = defaultdict(list)
            for index, other in enumerate(self._points[source]):
                groups[tuple(other.labels[axis] for axis in shared)].append(index)
            self._groups[source, shared] = groups
        found = groups.get(tuple(point.labels[axis] for axis in shared), [])
        return [self.by_step[source][index] for index in found]


def _keyed(found: Iterable[StepInstance], *, with_axes: bool) -> list[Any]:
    """Upstream instances as they enter a key: sorted, so that matrix order does not matter."""
    if with_axes:
        pairs = [[one.key, one.axes] for one in found]
        return sorted(pairs, key=lambda pair: (pair[0], msgspec.json.encode(pair[1])))
    return sorted(one.key for one in found)
