"""Walk two plans side by side to the first step whose outputs differ, and into its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from kit.errors import InvalidInput
from kit.verify.inputs import read_object
from kit.verify.records import JSON_SUFFIXES, Unreadable, escape, first_difference

FILES = ("prompt", "token", "response", "generation", "label", "result")
"""Output files in the order of cause and consequence, by a part of their name."""


class Divergence(Struct, frozen=True, kw_only=True):
    """The first step at which two runs part."""

    step: str
    what: str
    """outputs, only in the first, only in the second, not in the store."""
    causes: list[str] = []
    """What differs before its outputs: kind, parameters, pins, environment."""
    file: str = ""
    record: str = ""
    kind: str = ""
    """prompt, token ids, generation, label, count, other field, bytes."""
    field: str = ""
    first: str = ""
    second: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Side:
    """One run: its steps in plan order, and where their outputs are.

    Attributes:
        path: Run directory.
        steps: Step instances by id.
        hashes: Outputs by step as the run's record has them.
        store: Root of the store.
    """

    path: Path
    steps: dict[str, dict[str, Any]]
    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    store: Path | None = None

    def entry(self, step: str) -> Path | None:
        """The store's folder of a step, if it is there."""
        key = str(self.steps[step].get("key", ""))
        if self.store is None or not key:
            return None
        folder = self.store / key[:2] / key
        return folder if folder.is_dir() else None

    def outputs(self, step: str) -> dict[str, str] | None:
        """Output file -> sha256: as recorded by the run, else by the store; None if unknown."""
        if step in self.hashes:
            return self.hashes[step]
        entry = self.entry(step)
        if entry is None:
            return None
        files = read_object(entry / "step.json").get("files")
        if isinstance(files, dict) and files:
            return _hashes(files)
        listed = (p for p in entry.rglob("*") if p.is_file() and p.name != "step.json")
        return {str(p.relative_to(entry)): sha256(p.read_bytes()).hexdigest() for p in listed}


def read_side(path: Path, store: Path | None) -> Side | None:
    """A run directory's plan and recorded outputs; None when it has no plan.

    Raises:
        InvalidInput: The plan has no list of instances.
    """
    plan, record = read_object(path / "plan.json"), read_object(path / "record.json")
    if not plan:
        return None
    listed = plan.get("instances", plan.get("steps"))
    if not isinstance(listed, list) or not all(isinstance(s, dict) and "id" in s for s in listed):
        raise InvalidInput("field 'instances' is no list of steps", where=str(path / "plan.json"))
    steps = {str(step["id"]): step for step in listed}
    return Side(path, steps, _recorded(record), store)


def _recorded(record: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    steps = record.get("steps", {})
    if isinstance(steps, list):
        steps = {str(step.get("id", step.get("instance"))): step for step in steps}
    found = {}
    for id, step in steps.items() if isinstance(steps, dict) else ():
        outputs = step.get("outputs") if isinstance(step, dict) else None
        if isinstance(outputs, dict) and outputs:
            found[id] = _hashes(outputs)
    return found


def _hashes(files: Mapping[str, Any]) -> dict[str, str]:
    """File -> sha256 from either plain hashes or objects with one."""
    return {
        name: str(entry.get("sha256")) if isinstance(entry, dict) else str(entry)
        for name, entry in files.items()
    }


def diverge(first: Side, second: Side) -> Divergence | None:
    """The first step, in the first run's order, whose outputs differ."""
    unknown: Divergence | None = None
    for step in first.steps:
        if step not in second.steps:
            return Divergence(step=step, what="only in the first")
        ours, theirs = first.outputs(step), second.outputs(step)
        causes = _causes(first.steps[step], second.steps[step])
        if ours is None or theirs is None:
            differs = first.steps[step].get("key") != second.steps[step].get("key")
            if differs and unknown is None:
                unknown = Divergence(step=step, what="not in the store", causes=causes)
            continue
        if ours != theirs:
            return _inside(first, second, step, ours, theirs, causes)
    if unknown is not None:
        return unknown
    extra = next((step for step in second.steps if step not in first.steps), None)
    return Divergence(step=extra, what="only in the second") if extra else None


def _causes(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Fields of the two instances that differ, leaf by leaf."""
    causes = []
    for name in ("kind", "version", "params", "pins", "environment"):
        a, b = ours.get(name), theirs.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            causes += [
                f"{name}.{key}: {escape(str(a.get(key)))} against {escape(str(b.get(key)))}"
                for key in dict.fromkeys((*a, *b))
                if a.get(key) != b.get(key)
            ]
        elif a != b:
            causes.append(f"{name}: {escape(str(a))} against {escape(str(b))}")
    return causes


def _inside(
    first: Side,
    second: Side,
    step: str,
    ours: Mapping[str, str],
    theirs: Mapping[str, str],
    causes: list[str],
) -> Divergence:
    names = [n for n in dict.fromkeys((*ours, *theirs)) if ours.get(n) != theirs.get(n)]
    names.sort(key=lambda name: (_rank(name), name))
    about = Divergence(step=step, what="outputs", causes=causes, file=names[0], kind="bytes")
    here, there = first.entry(step), second.entry(step)
    for name in names:
        if name not in ours or name not in theirs:
            side = "first" if name in ours else "second"
            return structs.replace(about, file=name, kind="file", hint=f"only the {side} has it")
        if here is None or there is None or here == there:
            continue
        found = compare_files(about, here / name, there / name)
        if found is not None:
            return structs.replace(found, file=name)
    return structs.replace(about, first=ours[names[0]][:16], second=theirs[names[0]][:16])


def compare_files(about: Divergence, here: Path, there: Path) -> Divergence | None:
    """``about`` with what differs in two JSON files; None for other, equal or absent files."""
    if here.suffix not in JSON_SUFFIXES or not here.is_file() or not there.is_file():
        return None
    try:
        found = first_difference(here, there)
    except Unreadable:
        return None
    if found is None:
        return None
    return structs.replace(
        about,
        file=here.name,
        record=found.record,
        kind=found.kind,
        field=found.field,
        first=found.first,
        second=found.second,
        hint=found.hint,
    )


def _rank(name: str) -> int:
    return next((i for i, part in enumerate(FILES) if part in name.lower()), len(FILES))
