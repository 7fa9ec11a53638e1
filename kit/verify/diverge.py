"""Walk two plans side by side to the first step whose outputs differ, and into its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import Struct, structs

from kit import jsonfile
from kit.durable import sha256_file
from kit.results.files import stored
from kit.results.plan import StepInstance
from kit.results.record import FileRecord
from kit.results.run import Run
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


class _Stored(Struct):
    """What this needs of a store entry's ``step.json``."""

    files: dict[str, FileRecord] = {}


@dataclass(frozen=True)
class Side:
    """One run: its steps in plan order, and where their outputs are.

    Attributes:
        steps: Step instances by id.
        hashes: Outputs by step as the run's record has them: file -> sha256.
        store: Root of the store.
    """

    steps: dict[str, StepInstance]
    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    store: Path | None = None

    def entry(self, step: str) -> Path | None:
        """The store's folder of a step, if it is there."""
        if self.store is None:
            return None
        folder = stored(self.store, self.steps[step].key)
        inside = folder.resolve().is_relative_to(self.store.resolve())
        return folder if inside and folder.is_dir() else None

    def outputs(self, step: str) -> dict[str, str] | None:
        """Output file -> sha256: as recorded by the run, else by the store; None if unknown."""
        if step in self.hashes:
            return self.hashes[step]
        entry = self.entry(step)
        if entry is None:
            return None
        described = entry / "step.json"
        if described.is_file():
            return _hashes(jsonfile.read(described, _Stored).files)
        listed = (path for path in entry.rglob("*") if path.is_file())
        return {str(p.relative_to(entry)): sha256_file(p) for p in listed}


def read_side(run: Run, store: Path | None) -> Side | None:
    """A run's plan and recorded outputs; None when it has no plan.

    Raises:
        InvalidInput: Plan or record are damaged.
    """
    if run.plan is None:
        return None
    steps = run.record.steps if run.record is not None else {}
    recorded = {id: _hashes(step.outputs) for id, step in steps.items() if step.outputs}
    return Side(run.plan.by_id, recorded, store)


def _hashes(files: Mapping[str, FileRecord]) -> dict[str, str]:
    return {name: file.sha256 for name, file in files.items()}


def diverge(first: Side, second: Side) -> Divergence | None:
    """The first step, in the first run's order, whose outputs differ."""
    unknown: Divergence | None = None
    for step in first.steps:
        if step not in second.steps:
            return Divergence(step=step, what="only in the first")
        ours, theirs = first.outputs(step), second.outputs(step)
        causes = _causes(first.steps[step], second.steps[step])
        if ours is None or theirs is None:
            differs = first.steps[step].key != second.steps[step].key
            if differs and unknown is None:
                unknown = Divergence(step=step, what="not in the store", causes=causes)
            continue
        if ours != theirs:
            return _inside(first, second, step, ours, theirs, causes)
    if unknown is not None:
        return unknown
    extra = next((step for step in second.steps if step not in first.steps), None)
    return Divergence(step=extra, what="only in the second") if extra else None


def _causes(ours: StepInstance, theirs: StepInstance) -> list[str]:
    """Fields of the two instances that differ, leaf by leaf."""
    causes = []
    fields = [structs.asdict(side) for side in (ours, theirs)]
    for name in ("kind", "version", "params", "pins", "environment"):
        a, b = fields[0][name], fields[1][name]
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
        difference = compare_files(about, here / name, there / name)
        if difference is not None:
            return structs.replace(difference, file=name)
    return structs.replace(about, first=ours[names[0]][:16], second=theirs[names[0]][:16])


def compare_files(about: Divergence, here: Path, there: Path) -> Divergence | None:
    """``about`` with what differs in two JSON files; None for other, equal or absent files."""
    if here.suffix not in JSON_SUFFIXES or not here.is_file() or not there.is_file():
        return None
    try:
        difference = first_difference(here, there)
    except Unreadable:
        return None
    if difference is None:
        return None
    return structs.replace(
        about,
        file=here.name,
        record=difference.record,
        kind=difference.kind,
        field=difference.field,
        first=difference.first,
        second=difference.second,
        hint=difference.hint,
    )


def _rank(name: str) -> int:
    return next((i for i, part in enumerate(FILES) if part in name.lower()), len(FILES))
