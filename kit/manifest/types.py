"""Types of a manifest. ``manifests/schema/manifest.json`` is generated from them.

A manifest describes one experiment once. What differs between the published setting and the
miniature one (models, sizes, hyperparameters) stands in its profiles; the steps are shared.

References: a whole string ``"${axis}"``, ``"${axis.field}"``, ``"${pins.name}"`` is replaced when
the plan is made. There is nothing else to compute in a manifest: no expressions, no code.

Models: a profile's ``models`` names each model once, as a pin or as what a step makes. A step that
reads ``{model: victim}`` is the same step in a profile that pins the victim and in one that trains
it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from kit.errors import UsageError

SCHEMA_VERSION = 1

Identifier = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$(?!\n)")]
"""Lower-case name used for experiments, steps, pins, axes and cells' parts."""

Family = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$(?!\n)")]
"""A line of work. Three are the kit's own; somebody's paper is its own family."""

Scalar = bool | int | float | str
ParamValue = bool | int | float | str | list[bool | int | float | str]
"""What a step parameter may be."""


class Document(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A paper or note whose numbers the experiment reproduces."""

    id: Identifier
    title: Annotated[str, Meta(min_length=1)]
    cite: Annotated[str, Meta(min_length=1)]
    """How to find it: arXiv id with version, or the repository and path it is public at."""


class Sourced(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A parameter together with where its value comes from."""

    value: ParamValue
    source: Annotated[str, Meta(min_length=3)]
    """Document and place (``dtp, section 3.3``) or ``unspecified: why this value``."""


class InputRef(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a step's input comes from: exactly one of ``pin``, ``step`` and ``model``."""

    pin: str | None = None
    """A pin id, or a reference such as ``${pair.source}``."""
    step: Identifier | None = None
    """Another step of this manifest. If that step runs over axes this one lacks, the input is
    the list of all its instances over those axes."""
    model: str | None = None
    """A name of the profile's ``models``, or a reference to one such as ``${victim}``."""
    profiles: list[Identifier] | None = None
    """Profiles in which the input is given; all when absent. For optional inputs of the kind."""


class StepSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One unit of work; over a matrix it becomes one instance for each combination of ``each``."""

    id: Identifier
    kind: Annotated[str, Meta(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$(?!\n)")]
    """A registered step kind, ``family/name``."""
    version: Annotated[int, Meta(ge=1)]
    """Version of the kind this manifest was written for; a mismatch is refused."""
    each: list[Identifier] = []
    """Axes of the profile's matrix over which the step is repeated."""
    inputs: dict[str, InputRef] = {}
    profiles: list[Identifier] | None = None
    """Profiles that have this step; all when absent."""


class Resources(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a step needs, per instance; the plan adds them up, the launcher requests them."""

    gpus: Annotated[int, Meta(ge=0)] = 0
    gpu_memory_gb: Annotated[float, Meta(ge=0)] = 0.0
    """Per GPU."""
    memory_gb: Annotated[float, Meta(ge=0)] = 1.0
    minutes: Annotated[float, Meta(ge=0)] = 1.0
    minutes_on: dict[str, Annotated[float, Meta(ge=0)]] = {}
    """Card -> minutes where the name of the GPUs contains it (``H100``); a plan has ``minutes`` of
    its machine only."""
    disk_gb: Annotated[float, Meta(ge=0)] = 0.1
    processes: Annotated[int, Meta(ge=0)] = 0
    """Processes that share a step on the CPU; 0 or 1 is one. On GPUs there is one for each."""
    save_minutes: Annotated[float, Meta(gt=0)] | None = None
    """A long step saves its state at least this often; the kind's own interval when absent."""
    stop_seconds: Annotated[float, Meta(ge=0)] | None = None
    """A stopped step has so long to save its state; the kind's own time when absent."""
    source: str = ""
    """Where these figures come from (a record, or an estimate)."""

    @property
    def world(self) -> int:
        """Processes that share the step where its kind can be shared."""
        return max(1, self.gpus or self.processes)


Role = Literal["replicate", "setting", "group"]
"""What an axis is for: ``replicate`` values are one observation each (a seed, a pair of models),
``setting`` values are compared with one another, ``group`` values get tables of their own."""

AxisValue = Scalar | dict[str, Scalar]
"""A plain value, or a record with an ``id`` and further fields. The field ``seed`` moves with
``--seed``; ``group`` names the group of a replicate."""


class ModelSource(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model's name means in a profile: exactly one of ``pin`` and ``step``."""

    pin: str | None = None
    """A pin id, or ``${pins.name}``."""
    step: Identifier | None = None
    """A step of this manifest that writes a model. Axes that it shares with the reader agree."""
    at: dict[Identifier, Scalar] = {}
    """Axis -> id of its value: of a step over further axes, the instance that is meant."""


class Profile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Models, data, sizes and hyperparameters under which the steps run."""

    summary: str
    compares: Literal["published", "reference"] = "reference"
    """What its runs are compared with: numbers of the documents, or reference runs of the kit. For
    the first every parameter carries its source."""
    gpu: bool = False
    """Whether it needs the GPU environment or image."""
    scope: str = ""
    """What a verdict at this profile speaks of ("miniature models"); reports say so."""
    pins: dict[Identifier, Identifier] = {}
    """Local names for pins, referred to as ``${pins.name}``."""
    models: dict[Identifier, ModelSource] = {}
    """Names of models, given to steps by ``{model: name}``."""
    matrix: dict[Identifier, list[AxisValue]] = {}
    exclude: list[dict[Identifier, Scalar]] = []
    """Combinations that are left out, each axis -> id of its value; axes not named are any."""
    set: dict[Identifier, dict[str, ParamValue | Sourced]] = {}
    """Step id -> parameter -> value. Where published numbers are compared, every value
    carries its source."""
    resources: dict[Identifier, Resources] = {}
    """Step id -> needs; replaces the kind's own estimate."""


class Manifest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One experiment."""

    schema_version: Literal[1]
    id: Identifier
    family: Family
    """Which line of work it belongs to; in the repository the name of its folder."""
    version: Annotated[str, Meta(pattern=r"^[1-9][0-9]*-[A-Z]$(?!\n)")]
    """``N-X``: N moves when numbers stop being comparable, X when only the interface does."""
    title: Annotated[str, Meta(min_length=1)]
    summary: Annotated[str, Meta(min_length=1)]
    variant: Literal["as-reported", "corrected"]
    counterpart: Identifier | None = None
    """The same question in the other variant."""
    full_size: Identifier | None = None
    """The experiment that is this one at the published size, where that is one of its own."""
    documents: list[Document]
    axes: dict[Identifier, Role] = {}
    """Axis -> what it is for; every axis of a profile's matrix has a role."""
    steps: Annotated[list[StepSpec], Meta(min_length=1)]
    results: Identifier
    """The step whose ``results.json`` is compared with the expectation."""
    profiles: dict[Identifier, Profile]
    """By name; the kit's own are ``mini``, ``small`` and ``paper``."""
    notes: list[str] = []
    """Known departures from the documents, each a sentence that every report repeats."""


def steps_of(manifest: Manifest, profile: str) -> dict[str, StepSpec]:
    """Step id -> step as a profile has it: without the inputs that are for other profiles."""
    return {
        step.id: replace(
            step,
            inputs={
                name: source
                for name, source in step.inputs.items()
                if source.profiles is None or profile in source.profiles
            },
        )
        for step in manifest.steps
        if step.profiles is None or profile in step.profiles
    }


def profile_of(manifest: Manifest, name: str) -> Profile:
    """A profile by name.

    Raises:
        UsageError: The manifest has no such profile.
    """
    if name in manifest.profiles:
        return manifest.profiles[name]
    has = ", ".join(sorted(manifest.profiles)) or "none"
    larger = f"; at the published size: {manifest.full_size}" if manifest.full_size else ""
    raise UsageError(
        f"experiment {manifest.id!r} has no profile {name!r}", next_step=f"it has: {has}{larger}"
    )


def values_of(profile: Profile, step: str) -> dict[str, ParamValue]:
    """Parameter -> value that a profile gives a step, without the sources."""
    return {
        name: written.value if isinstance(written, Sourced) else written
        for name, written in profile.set.get(step, {}).items()
    }
