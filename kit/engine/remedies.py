"""Settings that a step kind declares as a cure, as they are to be typed for one instance."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from kit.engine.load import load_registry
from kit.engine.registry import Remedy, StepKind
from kit.results.plan import StepInstance


def kind_of(instance: StepInstance) -> StepKind | None:
    """The kind of an instance; ``None`` if this installation does not know it."""
    registry = load_registry()
    return registry.get(instance.kind) if instance.kind in registry.names() else None


def lowering_memory(instance: StepInstance) -> list[str]:
    """What to type so that the step needs less memory, best first."""
    kind = kind_of(instance)
    return _typed(kind, kind.lowers_memory, instance) if kind is not None else []


def steadying(instance: StepInstance) -> list[str]:
    """What to type so that the step's training is less likely to diverge."""
    kind = kind_of(instance)
    return _typed(kind, kind.steadies, instance) if kind is not None else []


def _typed(kind: StepKind, remedies: Sequence[Remedy], instance: StepInstance) -> list[str]:
    try:
        params = msgspec.convert(instance.params, kind.params)
    except msgspec.ValidationError:  # a plan made by another version of the kit
        return []
    found = []
    for remedy in remedies:
        value = remedy.value(params)
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            found.append(f"--set {instance.step}.{remedy.param}={text} ({remedy.effect})")
    return found
