"""Findings of the doctor, and what a profile asks of a machine.

The figures are those of the profile, else the step kinds' own estimates.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from kit.engine.registry import Registry
from kit.manifest.matrix import BadReference, combinations, resolve
from kit.manifest.types import (
    Manifest,
    Profile,
    Resources,
    StepSpec,
    profile_of,
    steps_of,
    values_of,
)

Level = Literal["OK", "WARN", "FAIL"]


class Check(Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    level: Level
    what: str
    """Short name, for grep."""
    detail: str
    mend: str = ""
    """What to type or do."""

    def render(self) -> str:
        """One line, and an indented one with the remedy."""
        line = f"{self.level:4}  {self.what}: {self.detail}"
        return f"{line}\n      mend: {self.mend}" if self.mend else line


class Needs(Struct, frozen=True, kw_only=True):
    """What a run asks of the machine; zero when nothing in particular is to be run."""

    gpus: int = 0
    gpu_memory_gb: float = 0.0
    memory_gb: float = 0.0
    disk_gb: float = 0.0
    extra: str = "cpu"
    """The set of optional dependencies: ``cpu`` or ``gpu``."""
    without: frozenset[str] = frozenset()
    """Packages of that set that no step asks for by name, and which may therefore be missing."""
    shared: tuple[str, ...] = ()
    """How steps share their work among these GPUs, a sentence each."""
    instead: str = ""
    """What to type where this machine's GPUs are others but would do."""


def ok(what: str, detail: str) -> Check:
    """All is well."""
    return Check(level="OK", what=what, detail=detail)


def warn(what: str, detail: str, mend: str = "") -> Check:
    """It may work."""
    return Check(level="WARN", what=what, detail=detail, mend=mend)


def fail(what: str, detail: str, mend: str = "") -> Check:
    """It will not work."""
    return Check(level="FAIL", what=what, detail=detail, mend=mend)


ENGINES = frozenset({"vllm"})
"""Packages that a step uses only where one of its parameters says so."""


def estimate(manifest: Manifest, profile: str, registry: Registry | None = None) -> Needs:
    """Largest GPU count and memory of any step, and the disk of all steps together.

    Steps whose kind cannot be asked (unknown, or parameters that do not convert) count as small;
    ``kit validate`` is where that is reported.
    """
    from kit.engine import registry as registered

    kinds = registry or registered.load_registry()
    spec = profile_of(manifest, profile)
    each: list[tuple[int, Resources]] = []
    for step in steps_of(manifest, profile).values():
        instances = sum(1 for _ in combinations(spec, step.each))
        each.append((instances, step_needs(spec, step, kinds)))
    gpus = max((need.gpus for _, need in each), default=0)
    return Needs(
        gpus=gpus,
        gpu_memory_gb=max((need.gpu_memory_gb for _, need in each), default=0.0),
        memory_gb=max((need.memory_gb for _, need in each), default=0.0),
        disk_gb=sum(count * need.disk_gb for count, need in each),
        extra="gpu" if gpus else "cpu",
        without=ENGINES - {str(v) for id in spec.set for v in values_of(spec, id).values()},
    )


def step_needs(profile: Profile, step: StepSpec, kinds: Registry) -> Resources:
    """What one instance of a step needs."""
    if step.id in profile.resources:
        return profile.resources[step.id]
    if step.kind not in kinds.names():
        return Resources()
    kind = kinds.get(step.kind)
    written = values_of(profile, step.id)
    try:
        point = next(combinations(profile, step.each), {})
        values = {key: resolve(value, point, profile.pins) for key, value in written.items()}
        return kind.resources(msgspec.convert(values, kind.params, strict=True), profile.gpu)
    except (BadReference, msgspec.ValidationError, ValueError, TypeError):
        return Resources()
