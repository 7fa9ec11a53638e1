"""What a report reads out of ``plan.json`` and ``record.json``: a tolerant subset.

The engine writes these files and owns their types. A report must also open the run of an older or
newer kit, so everything here has a default and unknown fields are passed over.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from kit.manifest.pin_types import Pin
from kit.manifest.types import Resources


class PinUse(Struct, frozen=True):
    """A step input that is a pin."""

    pin: str
    digest: str = ""


class StepUse(Struct, frozen=True):
    """A step input that is one or several other instances."""

    instances: list[str]
    many: bool = False


class PlanStep(Struct, frozen=True, kw_only=True):
    """One step instance as planned."""

    id: str
    kind: str = ""
    version: int = 0
    params: dict[str, Any] = {}
    pins: dict[str, PinUse] = {}
    steps: dict[str, StepUse] = {}
    resources: Resources = Resources()
    outputs: list[str] = []
    key: str = ""


class Plan(Struct, frozen=True, kw_only=True):
    """``plan.json``."""

    experiment: str = ""
    version: str = ""
    family: str = ""
    variant: str = ""
    profile: str = ""
    rehearsal: bool = False
    notes: list[str] = []
    pins: list[Pin] = []
    environment: dict[str, Any] = {}
    instances: list[PlanStep] = []


class Output(Struct, frozen=True, kw_only=True):
    """One file a step left."""

    sha256: str = ""
    size: int | None = None


class StepRecord(Struct, frozen=True, kw_only=True):
    """One step instance as run."""

    id: str
    key: str = ""
    status: str = ""
    cached: bool = False
    start: str = ""
    end: str = ""
    seconds: float | None = None
    peak_memory_gb: float | None = None
    peak_gpu_memory_gb: float | None = None
    outputs: dict[str, Output] = {}
    """Path inside the step's folder -> hash and size."""


class Record(Struct, frozen=True, kw_only=True):
    """``record.json``."""

    argv: list[str] = []
    start: str = ""
    end: str = ""
    commit: str | None = None
    dirty: bool | None = None
    kit_version: str = ""
    versions: dict[str, str | None] = {}
    hardware: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    overrides: list[str] = []
    rehearsal: bool = False
    steps: list[StepRecord] = []


def flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested object as label and text, for a table of two columns."""
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict):
            rows += flat(value, f"{name}: ")
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for i, item in enumerate(value):
                inner = item if isinstance(item, dict) else {"": item}
                rows += flat(inner, f"{name} {i + 1}: ")
        elif isinstance(value, list):
            rows.append((name, ", ".join(str(item) for item in value)))
        elif value is not None and value != "":
            shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
            rows.append((name, shown))
    return rows
