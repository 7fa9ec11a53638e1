"""From a manifest to a plan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kit.engine.batch import GpusToUse, fit, shares
from kit.engine.environment import Machine, environment_class
from kit.engine.keys import instance_key
from kit.engine.params import Override, parse_override, typed
from kit.engine.registry import Registry, StepKind
from kit.engine.wiring import Use, check
from kit.errors import InvalidInput, KitError, UsageError
from kit.manifest.matrix import (
    Point,
    axis_id,
    kept_only,
    points,
    resolve,
    resolved,
    shift_seeds,
    with_trials,
)
from kit.manifest.pin_types import Pin
from kit.manifest.source import PathTuple
from kit.manifest.types import (
    InputRef,
    Manifest,
    ModelSource,
    Profile,
    Resources,
    StepSpec,
    steps_of,
    values_of,
)
from kit.pins.store import PinStore
from kit.results.plan import ModelUse, PinUse, Plan, StepInstance, StepUse


def make_plan(
    manifest: Manifest,
    profile_name: str,
    *,
    pins: Mapping[str, Pin],
    digests: PinStore,
    registry: Registry,
    machine: Machine,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    rehearsal: bool = False,
    gpus: int | None = None,
    trials: int | None = None,
    fraction: float | None = None,
    only: Sequence[str] = (),
    gpu_gb: float | None = None,
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
        trials: How many attacks each search of the axis ``trial`` tries.
        fraction: Of a rehearsal, for kinds that can be shortened.
        only: ``axis=id,id`` each: other values of the axis are left out, and steps that nothing
            then reads.
        gpu_gb: Memory of a GPU, instead of this machine's.

    Raises:
        UsageError: Unknown profile, step or parameter in what the user typed.
        InvalidInput: The manifest does not fit the registered kinds.
        Preflight: A published batch cannot be shared evenly by the GPUs, or does not fit them.
    """
    use = Use(manifest, profile_name, registry, pins)
    with _in_words(manifest, profile_name):
        specs = check(use)
        written = profile = resolved(profile_name, use.profile)
        if seed is not None:
            profile = shift_seeds(profile, seed, where=f"{manifest.id} ({profile_name})")
        if trials is not None:
            profile = with_trials(profile, trials, where=f"{manifest.id} ({profile_name})")
        if only:
            profile = kept_only(profile, only, where=f"{manifest.id} ({profile_name})")
        chosen = [parse_override(text, [spec.id for spec in specs]) for text in overrides]
        cards = GpusToUse(gpus, gpu_gb, machine)
        builder = _Builder(use, profile, digests, machine, rehearsal, cards, fraction)
        try:
            for spec in specs:
                builder.add(spec, [override for override in chosen if override.step == spec.id])
        except InvalidInput as error:
            error.path = (*builder.path, *error.path)
            raise
        if gpus is not None and not builder.shares and not rehearsal:
            raise UsageError(
                f"no step of {manifest.id} ({profile_name}) shares a batch among GPUs: "
                f"--gpus {gpus} would change nothing",
                next_step="leave it out; kit plan shows the GPUs of each step",
            )
    (results,) = builder.by_step[manifest.results]
    instances = builder.read_by(results) if only else builder.instances
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
        notes=[*manifest.notes, *dict.fromkeys(builder.said(instances))],
        results=results.id,
        roles={axis: role for axis, role in manifest.axes.items() if axis in profile.matrix},
        pins=[pins[id] for id in sorted({p.pin for i in instances for p in i.pins.values()})],
        environment={
            "device": "cuda" if any(i.resources.gpus for i in instances) else "cpu",
            "gpu_arch": machine.gpu_arch if machine.gpus else None,
            "batch_invariant": machine.batch_invariant,
            "versions": {k: v for k, v in machine.versions.items() if v is not None},
        },
        instances=instances,
    )


def fraction_overrides(
    manifest: Manifest, profile: str, registry: Registry, fraction: float
) -> list[str]:
    """Overrides that give ``fraction`` to every step whose kind has such a parameter.

    Raises:
        UsageError: No kind of the experiment has it, and none is shortened otherwise.
    """
    steps = steps_of(manifest, profile).values()
    known = [spec for spec in steps if spec.kind in registry.names()]
    overrides = [
        f"{spec.id}.fraction={fraction}"
        for spec in known
        if "fraction" in registry.get(spec.kind).params.__struct_fields__
    ]
    if not overrides and not any(registry.get(spec.kind).shortened for spec in known):
        raise UsageError(
            "--fraction has no effect: no step of this experiment has a parameter 'fraction'",
            where=manifest.id,
            next_step="leave it out, or shorten a step with --set step.param=value",
        )
    return overrides


class _Builder:
    """Collects instances; remembers per step which instance stands at which point."""

    def __init__(
        self,
        use: Use,
        profile: Profile,
        digests: PinStore,
        machine: Machine,
        rehearsal: bool,
        cards: GpusToUse,
        fraction: float | None = None,
    ) -> None:
        self.use, self.profile, self.digests = use, profile, digests
        self.cards, self.machine, self.rehearsal = cards, machine, rehearsal
        self.fraction = fraction
        self.shares = False
        self.notes: dict[str, str] = {}
        self.path: PathTuple = ()
        """Of the manifest's document: what is being read."""
        self.instances: list[StepInstance] = []
        self.by_step: dict[str, list[StepInstance]] = {}
        self.by_id: dict[str, StepInstance] = {}
        self.used_pins: dict[str, str] = {}
        self._written: dict[str, ModelUse] = {}
        self._points: dict[str, list[Point]] = {}
        self._each: dict[str, list[str]] = {}
        self._groups: dict[tuple[str, tuple[str, ...]], dict[tuple[str, ...], list[int]]] = {}

    def add(self, spec: StepSpec, overrides: list[Override]) -> None:
        """Add all instances of one step."""
        kind, written = self.use.registry.get(spec.kind), values_of(self.profile, spec.id)
        self._each[spec.id], self._points[spec.id] = spec.each, points(self.profile, spec.each)
        self.by_step[spec.id] = [
            self._instance(spec, kind, point, written, overrides) for point in self._points[spec.id]
        ]
        self.instances.extend(self.by_step[spec.id])

    def said(self, instances: Sequence[StepInstance]) -> Iterator[str]:
        """What there is to tell the reader of these."""
        return (self.notes[i.id] for i in instances if i.id in self.notes)

    def read_by(self, last: StepInstance) -> list[StepInstance]:
        """An instance and all that it is made from, in plan order."""
        wanted = {last.id}
        for instance in reversed(self.instances):
            if instance.id in wanted:
                wanted.update(instance.upstream())
        return [instance for instance in self.instances if instance.id in wanted]

    def _instance(
        self,
        spec: StepSpec,
        kind: StepKind,
        point: Point,
        written: Mapping[str, Any],
        overrides: Sequence[Override],
    ) -> StepInstance:
        id, inputs = point.instance(spec.id), _Inputs()
        self.path = ("profiles", self.use.name, "set", spec.id)
        values = resolve(written, point.values, self.profile.pins)
        struct = typed(kind, values, overrides, step=spec.id)
        if self.fraction is not None and kind.shortened is not None:
            struct = kind.shortened(struct, self.fraction)
        self.path = ("profiles", self.use.name, "resources", spec.id)
        resources = self.profile.resources.get(spec.id)
        if resources is None:
            resources = kind.resources(struct, self.profile.gpu)
        resources = self._timed(kind, resources)
        unread = kind.unread(struct)
        for name, ref in spec.inputs.items():
            if name not in unread:
                self.path = ("steps", spec.id, "inputs", name)
                self._input(inputs, spec, kind, name, ref, point)
        self.shares = self.shares or shares(kind, resources)
        struct, resources, note = fit(kind, struct, resources, gpus=self.cards.gpus, where=id)
        if not note:
            attributes = {name: model.attributes for name, model in inputs.models.items()}
            kept = frozenset(override.param for override in overrides)
            struct, resources, note = self.cards.size(kind, struct, resources, attributes, id, kept)
            self.shares = self.shares or bool(note)
        if note:
            self.notes[id] = note
        params = msgspec.to_builtins(struct)
        self.path = ("steps", spec.id, "kind")
        environment = environment_class(
            kind, params, resources, self.machine, rehearsal=self.rehearsal
        )
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
            roles={axis: self.use.manifest.axes[axis] for axis in sorted(inputs.axes)},
            resources=resources,
            environment=environment,
            outputs=list(kind.outputs),
            launch=kind.launch if resources.world > 1 else "worker",
            intermediate=kind.intermediate,
            canaries=[] if self.rehearsal else list(kind.canaries),
            key="",
        )
        made = msgspec.structs.replace(
            made, key=instance_key(made, kind, self.by_id, self.use.pins)
        )
        self.by_id[id] = made
        return made

    def _timed(self, kind: StepKind, resources: Resources) -> Resources:
        """Needs with the kind's own times for saving where the profile says none."""
        if resources.processes > 1 and (resources.gpus or kind.launch != "torchrun"):
            raise InvalidInput(
                f"{resources.processes} processes: "
                + (
                    "a step on GPUs has one for each"
                    if resources.gpus
                    else f"{kind.name} runs in a single one"
                ),
                next_step="leave 'processes' out of its resources",
                path=("processes",),
            )
        return msgspec.structs.replace(
            resources,
            minutes=self._minutes(resources),
            minutes_on={},
            save_minutes=resources.save_minutes or kind.save_minutes,
            stop_seconds=kind.stop_seconds
            if resources.stop_seconds is None
            else resources.stop_seconds,
        )

    def _minutes(self, resources: Resources) -> float:
        """How long on this machine's GPUs; the slowest where several kinds are mixed."""
        if not resources.gpus:
            return resources.minutes
        cards = {gpu.name for gpu in self.machine.gpus}
        return max(
            (
                next(
                    (m for card, m in resources.minutes_on.items() if card in name),
                    resources.minutes,
                )
                for name in cards
            ),
            default=resources.minutes,
        )

    def _input(
        self,
        inputs: _Inputs,
        spec: StepSpec,
        kind: StepKind,
        name: str,
        ref: InputRef,
        point: Point,
    ) -> None:
        """Note what an input means at a point."""
        source, sort = ModelSource(pin=ref.pin, step=ref.step), kind.inputs[name]
        axes: Mapping[str, Any] = point.values
        if ref.model is not None:
            source, axes = self.profile.models[resolve(ref.model, axes, self.profile.pins)], {}
        if source.pin is not None:
            id = resolve(source.pin, axes, self.profile.pins)
            inputs.pins[name] = PinUse(pin=id, digest=self._digest(id))
            if sort == "model":
                inputs.models[name] = ModelUse(attributes=self.use.pins[id].attributes)
            return
        assert source.step is not None  # kit.engine.wiring saw to it
        instances = self._upstream(spec, source.step, point, source.at)
        if not instances:
            raise InvalidInput(
                f"nothing to read: 'exclude' leaves no instance of {source.step!r} for "
                f"{point.instance(spec.id)}",
                next_step="exclude what would read it, too",
            )
        many = sort == "steps"
        inputs.steps[name] = StepUse(instances=[instance.id for instance in instances], many=many)
        if sort == "model":
            (made,) = instances
            inputs.models[name] = self._written[made.id]
        elif many or kind.reads_axes:
            inputs.axes.update(axis for instance in instances for axis in instance.axes)

    def _digest(self, id: str) -> str:
        if id not in self.used_pins:
            try:
                self.used_pins[id] = self.digests.digest(id)
            except KitError:
                if not self.rehearsal:
                    raise
                # A rehearsal needs no input, not even one that is gone.
                self.used_pins[id] = "stand-in"
        return self.used_pins[id]

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
        instances = groups.get(tuple(wanted[axis] for axis in shared), [])
        return [self.by_step[source][index] for index in instances]


@dataclass
class _Inputs:
    """What the inputs of one instance are."""

    pins: dict[str, PinUse] = field(default_factory=dict)
    steps: dict[str, StepUse] = field(default_factory=dict)
    models: dict[str, ModelUse] = field(default_factory=dict)
    axes: set[str] = field(default_factory=set)
    """Axes whose values the function may look at."""


@contextmanager
def _in_words(manifest: Manifest, profile: str) -> Iterator[None]:
    """Errors raised inside say where in words, for manifests that come from no file."""
    try:
        yield
    except InvalidInput as error:
        if not error.where:
            error.where = f"{manifest.id} ({profile})"
            match error.path:
                case ("steps", step, *rest):
                    id = manifest.steps[step].id if isinstance(step, int) else step
                    error.where += f", step {id!r}"
                    if rest[:1] == ["inputs"] and rest[1:]:
                        error.where += f", input {rest[1]!r}"
                case (_, _, *rest):
                    error.where += f", {'.'.join(map(str, rest))}"
        raise
