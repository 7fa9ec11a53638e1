"""Canonical JSON and the keys made from it.

Two runs share a finished step exactly when the canonical bytes of what describes it are equal, so
the form is fixed: sorted keys, no spaces, UTF-8, floats by ``repr``, no NaN or infinity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from kit.engine.registry import Registry, StepKind, params_of
from kit.errors import InvalidInput
from kit.manifest.pin_types import Pin
from kit.results.plan import Plan, StepInstance


def canonical_json(value: Any) -> bytes:
    """The one byte string of a JSON value.

    Raises:
        ValueError: NaN, infinity or a lone surrogate, which JSON cannot carry.
        TypeError: Something that is not JSON.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def digest(value: Any) -> str:
    """sha256 of the canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def instance_key(
    instance: StepInstance,
    kind: StepKind,
    by_id: Mapping[str, StepInstance],
    pins: Mapping[str, Pin],
) -> str:
    """The key of a step instance: everything that decides its outputs and nothing else.

    Args:
        instance: With everything but its key.
        kind: Its kind.
        by_id: The instances it reads.
        pins: The pins it reads.
    """
    inputs: dict[str, Any] = {}
    for name, use in instance.pins.items():
        # A step reads a pin's attributes (its chat format) as well as its files.
        attributes = pins[use.pin].attributes
        inputs[name] = [use.digest, attributes] if attributes else use.digest
    for name, made in instance.steps.items():
        read = [by_id[id] for id in made.instances]
        if name in instance.models:
            inputs[name] = [read[0].key, instance.models[name].attributes]
        elif made.many or kind.reads_axes:
            pairs = [[source.key, source.axes] for source in read]
            # Sorted, so that the order of a matrix does not matter.
            inputs[name] = sorted(pairs, key=lambda pair: (pair[0], msgspec.json.encode(pair[1])))
        else:
            inputs[name] = sorted(source.key for source in read)
    if kind.reads_axes:
        inputs["axes"] = instance.axes
    if instance.roles:
        inputs["roles"] = instance.roles
    return digest(
        {
            "kind": instance.kind,
            "version": instance.version,
            "params": instance.params,
            "inputs": inputs,
            "environment": instance.environment,
        }
    )


def require_own_keys(plan: Plan, step: str, registry: Registry) -> None:
    """Refuse an instance whose key, or that of one it was made from, says something else than it.

    A plan file can be edited: outputs of 30 steps under the key of 200 would be taken for those of
    200 by every later run.

    Args:
        plan: The plan.
        step: Instance id.
        registry: Step kinds.

    Raises:
        InvalidInput: Parameters are not the kind's, or a key is not the one of its parameters,
            inputs and environment.
    """
    pins = {pin.id: pin for pin in plan.pins}
    todo, checked = [step], set[str]()
    while todo:
        instance = plan.instance(todo.pop())
        if instance.id in checked:
            continue
        checked.add(instance.id)
        todo += instance.upstream()
        kind = registry.get(instance.kind, where=instance.id)
        try:
            params_of(kind, instance.params)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"its parameters: {error}", where=instance.id) from None
        if instance_key(instance, kind, plan.by_id, pins) != instance.key:
            raise InvalidInput(
                "its key is not the key of its parameters, inputs and environment",
                where=instance.id,
                why="the plan was changed after it was made; its outputs would be stored as those "
                "of another step",
                next_step="make the plan again: kit plan EXP --json, changes by --set STEP.PARAM=X",
            )
