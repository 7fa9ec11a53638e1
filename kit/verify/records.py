"""The first record at which two JSON or JSON-lines files differ, root cause first.

What a model was shown decides what it said, and that decides how it was scored. So fields are
compared in that order over all records: a different prompt in record 100 is reported before a
different label in record 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

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


@dataclass(frozen=True)
class RecordDifference:
    """Where two files first differ.

    Attributes:
        record: Name of the record (its id, or its number from 1), with how many there are.
        kind: Kind of the field, one of :data:`ORDER`, ``other field``, ``number of records``.
        field: The field's name, with position inside lists.
        first: Excerpt of the first file's value.
        second: Excerpt of the second file's value.
        hint: What happened, where that can be said ("the second has 128000 twice").
    """

    record: str
    kind: str
    field: str
    first: str
    second: str
    hint: str = ""


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
            f"{len(ours)} records",
            f"{len(theirs)} records",
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
