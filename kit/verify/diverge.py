"""Two runs walked side by side to the first step whose outputs differ, and into its files.

What a model was shown decides what it said, and that decides how it was scored. So fields are
compared in that order over all records: a different prompt in record 100 is reported before a
different label in record 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from kit import jsonfile
from kit.durable import sha256_file
from kit.plural import plural
from kit.results.files import stored
from kit.results.plan import StepInstance
from kit.results.record import FileRecord
from kit.results.run import Run

_START, _FINISH = "prompt_start", "finish_reason"
_INJECTED = ("injected", "injected_anywhere")
ORDER: tuple[tuple[str, frozenset[str]], ...] = (
    ("item", frozenset({"id", "item", "items", "index", "sample_id", "set", "condition"})),
    (
        "prompt",
        frozenset({"prompt", "messages", "input", "text", "question", "instruction", "data"}),
    ),
    ("token ids", frozenset({"ids", "input_ids", "token_ids", "tokens", "prompt_ids"}) | {_START}),
    (
        "generation",
        frozenset({"response", "responses", "generation", "output", "completion", _FINISH}),
    ),
    ("choice", frozenset({"choice", "choices", "logprobs", "scores"})),
    ("label", frozenset({"label", "labels", "correct", "success", "hit", "refused", *_INJECTED})),
    ("count", frozenset({"k", "n", "count", "value"})),
)
"""Kinds of field, from cause to consequence; any other field comes last."""

JSON_SUFFIXES = (".json", ".jsonl")
_AROUND = 24


class RecordDifference(Struct, frozen=True):
    """Where two files first differ."""

    record: str = ""
    """Name of the record (its id, or its number from 1), with how many there are."""
    kind: str = ""
    """Of the field: prompt, token ids, generation, label, count, other field, number of records,
    bytes."""
    field: str = ""
    """Its name, with position inside lists."""
    first: str = ""
    second: str = ""
    """Excerpts of the two values."""
    hint: str = ""
    """What happened, where that can be said ("the second has 128000 twice")."""


class Unreadable(ValueError):
    """Not JSON after all; the files can only be compared byte by byte."""


def first_difference(first: Path, second: Path) -> RecordDifference | None:
    """The first differing field of two JSON or JSON-lines files, None when the contents agree.

    Raises:
        Unreadable: One of the files is not JSON.
    """
    ours, theirs = read_records(first), read_records(second)
    pairs = list(zip(ours, theirs, strict=False))
    total = min(len(ours), len(theirs))
    names = list(dict.fromkeys(key for here, there in pairs for key in (*here, *there)))
    numbers = {key for here, _ in pairs[:1] for key, value in here.items() if _number(value)}
    for kind, keys in _kinds(names, numbers):
        for index, (here, there) in enumerate(pairs):
            for key in keys:
                if here.get(key) != there.get(key):
                    where = f"{_name(here, index)} of {total}"
                    return describe(where, kind, key, here.get(key), there.get(key), here)
    if len(ours) != len(theirs):
        return RecordDifference(
            f"after record {total}",
            "number of records",
            "",
            plural(len(ours), "record"),
            plural(len(theirs), "record"),
        )
    return None


def read_records(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSON-lines file; a JSON document is one record (or its list of objects).

    Raises:
        Unreadable: Not JSON.
    """
    raw = path.read_bytes()
    try:
        if path.suffix == ".jsonl":
            values = [msgspec.json.decode(line) for line in raw.splitlines() if line.strip()]
        else:
            value = msgspec.json.decode(raw)
            values = value if isinstance(value, list) else [value]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"{path.name}: {error}") from None
    return [value if isinstance(value, dict) else {"value": value} for value in values]


def _kinds(names: list[str], numbers: set[str]) -> list[tuple[str, list[str]]]:
    """Fields by kind. A field of a model's answers may be called ``text`` or ``ids`` as well, and
    ``tokens`` may be how many there are."""
    answers = _FINISH in names
    by_kind: dict[str, list[str]] = {kind: [] for kind in (*dict(ORDER), "other field")}
    for name in names:
        low = name.lower()
        kind = next((kind for kind, keys in ORDER if low in keys), "other field")
        if answers and low in ("text", "ids", "token_ids"):
            kind = "generation"
        elif kind == "token ids" and name in numbers:
            kind = "count"
        by_kind[kind].append(name)
    return list(by_kind.items())


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _name(record: Mapping[str, Any], index: int) -> str:
    for keys in (("id",), ("item",), ("set", "condition", "sample_id")):
        parts = [str(record[key]) for key in keys if isinstance(record.get(key), str | int)]
        if parts:
            return f"record {index + 1} ({escape(', '.join(parts))})"
    return f"record {index + 1}"


def describe(
    where: str, kind: str, field: str, first: Any, second: Any, record: Mapping[str, Any]
) -> RecordDifference:
    """Walk down to the first leaf that differs and cut out its surroundings."""
    path = field
    while True:
        if isinstance(first, dict) and isinstance(second, dict):
            key = next(k for k in (*first, *second) if first.get(k) != second.get(k))
            path, first, second = f"{path}.{key}", first.get(key), second.get(key)
        elif isinstance(first, list) and isinstance(second, list):
            hint = inserted(first, second)
            at = _first_index(first, second)
            if hint or at >= min(len(first), len(second)) or not _nested(first[at], second[at]):
                item = _item(record, field, at)
                return RecordDifference(
                    where, kind, f"{path}[{at}]{item}", _list(first, at), _list(second, at), hint
                )
            path, first, second = f"{path}[{at}]", first[at], second[at]
        else:
            break
    if isinstance(first, str) and isinstance(second, str):
        at = _first_index(first, second)
        cut = slice(max(0, at - _AROUND), at + _AROUND)
        return RecordDifference(
            where, kind, path, _quoted(first, cut), _quoted(second, cut), f"from character {at + 1}"
        )
    return RecordDifference(where, kind, path, _short(first), _short(second))


def _nested(first: Any, second: Any) -> bool:
    both = (list, dict, str)
    return isinstance(first, both) and isinstance(second, both)


def _item(record: Mapping[str, Any], field: str, at: int) -> str:
    """Name of the item a label belongs to."""
    items = record.get("items")
    if field == "items" or not isinstance(items, list) or at >= len(items):
        return ""
    return f" (item {escape(str(items[at]))})"


def _first_index(first: Any, second: Any) -> int:
    for index, (x, y) in enumerate(zip(first, second, strict=False)):
        if x != y:
            return index
    return min(len(first), len(second))


def inserted(first: list[Any], second: list[Any]) -> str:
    """One element more on one side, everything else equal: say which."""
    for name, longer, shorter in (("first", first, second), ("second", second, first)):
        if len(longer) == len(shorter) + 1:
            at = _first_index(longer, shorter)
            if longer[at + 1 :] == shorter[at:]:
                extra = longer[at]
                twice = at > 0 and longer[at - 1] == extra
                again = " twice in a row" if twice else ""
                return f"the {name} has {_short(extra)}{again} at position {at + 1}"
    return ""


def _list(values: list[Any], at: int) -> str:
    start, stop = max(0, at - 3), at + 4
    shown = ", ".join(_short(value) for value in values[start:stop])
    return f"[{'..., ' if start else ''}{shown}{', ...' if stop < len(values) else ''}]"


def _quoted(text: str, cut: slice) -> str:
    before = "..." if cut.start else ""
    after = "..." if cut.stop < len(text) else ""
    return f'{before}"{escape(text[cut])}"{after}'


def _short(value: Any) -> str:
    text = "absent" if value is None else value if isinstance(value, str) else repr(value)
    return escape(text[: 2 * _AROUND]) + ("..." if len(text) > 2 * _AROUND else "")


def escape(text: str) -> str:
    """Model output is untrusted: control and direction characters are shown, not sent."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


FILES = ("prompt", "token", "response", "generation", "label", "result")
"""Output files in the order of cause and consequence, by a part of their name."""


class Divergence(RecordDifference, frozen=True, kw_only=True):
    """The first step at which two runs part."""

    step: str
    what: str
    """outputs, only in the first, only in the second, not in the store."""
    causes: list[str] = []
    """What differs before its outputs: kind, parameters, pins, environment."""
    file: str = ""


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
    return structs.replace(about, file=here.name, **structs.asdict(difference))


def _rank(name: str) -> int:
    return next((i for i, part in enumerate(FILES) if part in name.lower()), len(FILES))
