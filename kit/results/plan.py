"""The plan: step instances with resolved parameters and keys, in an order they can run in.

``plan.json`` is complete: ``kit step plan.json INSTANCE`` needs nothing else but the store, which
is what lets SLURM or Snakemake run the same steps.
"""

from __future__ import annotations

import gzip
import re
import shlex
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from kit import jsonfile
from kit.errors import InvalidInput, UsageError
from kit.manifest.pin_types import AttributeValue, Pin
from kit.manifest.types import Resources

PLAN_VERSION = 2
"""2: roles of axes, models as inputs, how many processes a step has."""
_GZIP = b"\x1f\x8b"
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_KEY = re.compile(r"[0-9a-f]{64}")


class PinUse(Struct, frozen=True, gc=False):
    """A step input that is a pin."""

    pin: str
    digest: str


class StepUse(Struct, frozen=True, gc=False):
    """A step input that is one or several finished instances, in plan order."""

    instances: list[str]
    many: bool
    """Whether the kind asked for a list (``steps``) or exactly one (``step``)."""


class ModelUse(Struct, frozen=True, gc=False):
    """That an input is a model; ``pins`` or ``steps`` say under the same name which."""

    attributes: dict[str, AttributeValue]
    folder: str = ""
    """Where the model is in the outputs of the step; empty for a pin, whose folder it is."""


class StepInstance(Struct, frozen=True, kw_only=True):
    """One unit of work with everything decided."""

    id: str
    step: str
    kind: str
    version: int
    params: dict[str, Any]
    pins: dict[str, PinUse] = {}
    steps: dict[str, StepUse] = {}
    models: dict[str, ModelUse] = {}
    axes: dict[str, Any] = {}
    roles: dict[str, str] = {}
    """Axis -> role, of the axes that its function may look at."""
    resources: Resources = Resources()
    environment: dict[str, Any] = {}
    outputs: list[str] = []
    launch: str = "worker"
    intermediate: bool = False
    """Its outputs are dropped once its readers are done."""
    canaries: list[str] = []
    """Ids of the canaries that a whole run of it leaves."""
    key: str

    def upstream(self) -> Iterable[str]:
        """Ids of the instances this one reads."""
        for use in self.steps.values():
            yield from use.instances

    def input_digests(self, digests: Mapping[str, str]) -> dict[str, list[str]]:
        """Input -> digests of the outputs it reads; sorted, as the key is blind to matrix order.

        Args:
            digests: Instance id -> digest of its outputs.
        """
        return {
            name: sorted(digests[id] for id in use.instances) for name, use in self.steps.items()
        }


class Totals(Struct, frozen=True, kw_only=True):
    """What is still to be done, added up."""

    instances: int
    to_run: int
    cpu_hours: float
    gpu_hours: float
    gpus: int
    """Most GPUs one step wants."""
    gpu_memory_gb: float
    """Most GPU memory one step wants, per GPU."""
    memory_gb: float
    disk_gb: float
    download_gb: float


class Plan(Struct, kw_only=True, dict=True):
    """An experiment at a profile, ready to run."""

    schema_version: int = PLAN_VERSION
    experiment: str
    version: str
    family: str
    variant: str
    profile: str
    scope: str = ""
    """What a verdict at the profile speaks of."""
    rehearsal: bool = False
    seed: int | None = None
    overrides: list[str] = []
    modified: bool = False
    notes: list[str] = []
    results: str
    """Instance id of the step whose ``results.json`` is the result."""
    roles: dict[str, str] = {}
    """Axis -> ``replicate``, ``setting`` or ``group``."""
    pins: list[Pin] = []
    """The pins used, whole, so that a plan can be run without the catalog."""
    environment: dict[str, Any] = {}
    """The environment class the plan was made for."""
    instances: list[StepInstance]
    manifest: str = ""
    """Path of a user's own manifest; empty for an experiment of the repository."""

    @property
    def name(self) -> str:
        """What the command line calls the experiment: its id, or the path of its manifest."""
        return shlex.quote(self.manifest) if self.manifest else self.experiment

    @cached_property
    def by_id(self) -> dict[str, StepInstance]:
        """Instance id -> instance."""
        return {instance.id: instance for instance in self.instances}

    @cached_property
    def by_step(self) -> dict[str, list[StepInstance]]:
        """Step -> its instances."""
        grouped: dict[str, list[StepInstance]] = {}
        for instance in self.instances:
            grouped.setdefault(instance.step, []).append(instance)
        return grouped

    def instance(self, id: str) -> StepInstance:
        """The instance of this id.

        Raises:
            UsageError: No such instance.
        """
        try:
            return self.by_id[id]
        except KeyError:
            same = [known for known in self.by_id if known.startswith(f"{id}[")]
            some = ", ".join((same or list(self.by_id))[:8])
            raise UsageError(
                f"the plan has no step {id!r}",
                next_step=f"steps are, for example: {some}",
            ) from None

    def totals(self, cached: Collection[str], present_pins: Collection[str] = ()) -> Totals:
        """Add up what remains.

        Args:
            cached: Ids of instances that the store already has.
            present_pins: Pins that need no download.
        """
        rest = [instance for instance in self.instances if instance.id not in cached]
        needs = [instance.resources for instance in rest]
        sizes = [
            file.size or 0
            for pin in self.pins
            if pin.kind != "package" and pin.id not in present_pins
            for file in pin.files
        ]
        return Totals(
            instances=len(self.instances),
            to_run=len(rest),
            cpu_hours=sum(need.minutes for need in needs if not need.gpus) / 60,
            gpu_hours=sum(need.minutes * need.gpus for need in needs) / 60,
            gpus=max((need.gpus for need in needs), default=0),
            gpu_memory_gb=max((need.gpu_memory_gb for need in needs), default=0.0),
            memory_gb=max((need.memory_gb for need in needs), default=0.0),
            disk_gb=sum(need.disk_gb for need in needs),
            download_gb=sum(sizes) / 1e9,
        )

    def to_json(self) -> bytes:
        """The bytes of ``plan.json``."""
        return msgspec.json.encode(self)


def read_plan(path: Path) -> Plan:
    """Read ``plan.json``, which may be compressed by gzip, and then cut into ``PATH.000``, ...

    Raises:
        InvalidInput: Not a plan, or one of another version of the kit.
    """
    again = "make it again: kit plan EXP --json > plan.json, or kit run EXP"
    parts = [] if path.exists() else sorted(path.parent.glob(f"{path.name}.[0-9][0-9][0-9]"))
    advice = "a run directory has one; or kit plan EXP --json > plan.json"
    content = b"".join(jsonfile.content_of(part, next_step=advice) for part in parts or [path])
    try:
        content = gzip.decompress(content) if content.startswith(_GZIP) else content
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"not a plan: {error}", where=str(path), next_step=again) from None
    plan = jsonfile.decode(content, Plan, where=str(path), next_step=again, version=PLAN_VERSION)
    for problem in _problems(plan):
        raise InvalidInput(
            f"not a plan: {problem}",
            where=str(path),
            next_step=again,
        )
    return plan


def _problems(plan: Plan) -> Iterator[str]:
    """What no plan of the kit has: names that lead out of the store, steps in no order to run."""
    for name, text in (("experiment", plan.experiment), ("profile", plan.profile)):
        if not _NAME.fullmatch(text):
            yield f"its {name} {text!r} is not a name"
    before: set[str] = set()
    for instance in plan.instances:
        if not _KEY.fullmatch(instance.key):
            yield f"the key of {instance.id}, {instance.key!r}, is not 64 hexadecimal digits"
        for id in instance.upstream():
            if id not in before:
                yield f"{instance.id} reads {id!r}, which is not among the steps before it"
        if instance.id in before:
            yield f"two steps are called {instance.id}"
        before.add(instance.id)
    if plan.results not in before:
        yield f"there is no step {plan.results!r}, whose results it names"
