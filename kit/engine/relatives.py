"""Finished steps that did a part of what a step is about to do.

Labels of 200 training steps are the first half of the labels of 400: the two steps have different
keys, because the schedule is an input, but every label they share is decided by the same model,
parameters and environment. Such a step may take finished pieces over instead of making them again.

What may be taken is narrow on purpose: same kind, version, parameters, environment and inputs, and
one upstream step that differs in one parameter. Two steps of one plan never are relatives of each
other unless the plan varies that parameter, so a run on an empty store makes everything itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from kit.engine.store import RECORD, STORE_VERSION, Store, StoredStep


def relatives(store: Store, step: StoredStep, name: str, but: str) -> list[str]:
    """Keys of whole entries that differ from ``step`` by parameter ``but`` of its input ``name``.

    Args:
        store: Where to look.
        step: What is about to be done; its ``files`` do not matter.
        name: A step input with one instance.
        but: The one parameter of that upstream step that may have another value.

    Returns:
        Keys whose outputs were checked, the newest first.
    """
    (own,) = step.inputs[name]
    upstream = _read(store.path(own))
    if upstream is None:
        return []
    found = [
        (other.started, key)
        for key, other in _entries(store)
        if key != own and _same_step(step, other, name)
        if _same_upstream(upstream, _read(store.path(other.inputs[name][0])), but)
    ]
    keys = [key for _, key in sorted(found, reverse=True)]
    return [key for key in keys if store.look(key).entry is not None]


def _same_step(step: StoredStep, other: StoredStep, name: str) -> bool:
    def rest(one: StoredStep) -> dict[str, list[str]]:
        return {key: value for key, value in one.inputs.items() if key != name}

    return (
        (step.kind, step.version, step.params, step.environment)
        == (other.kind, other.version, other.params, other.environment)
        and rest(step) == rest(other)
        and len(other.inputs.get(name, [])) == 1
    )


def _same_upstream(one: StoredStep, other: StoredStep | None, but: str) -> bool:
    """Whether two upstream steps differ in ``but`` and in nothing else."""
    if other is None or one.params.get(but) == other.params.get(but):
        return False
    return (one.kind, one.version, one.inputs, one.environment) == (
        other.kind,
        other.version,
        other.inputs,
        other.environment,
    ) and {**one.params, but: None} == {**other.params, but: None}


def _entries(store: Store) -> Iterator[tuple[str, StoredStep]]:
    for record in sorted((store.home / "store").glob(f"*/*/{RECORD}")):
        entry = _read(record.parent)
        if entry is not None:
            yield record.parent.name, entry


def _read(folder: Path) -> StoredStep | None:
    try:
        entry = msgspec.json.decode((folder / RECORD).read_bytes(), type=StoredStep)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None
    return entry if entry.schema_version == STORE_VERSION else None
