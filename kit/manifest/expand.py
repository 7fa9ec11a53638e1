"""An expectation file written out: every cell with all its fields, each at the place it stands.

Works on the tree, so that a default's value keeps the line and column of the default.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from kit.manifest.source import Node, Problems

MOST_CELLS = 20_000
"""Of one expectation: braces multiply, and a line could ask for a billion."""
REQUIRED = ("status", "unit", "place")
_PATTERN = re.compile(r"[{},*]")
_BRACES = re.compile(r"\{([^{}]*)\}")


def ids(pattern: str) -> Iterator[str]:
    """The texts that a pattern with ``{a,b}`` stands for, the first brace changing slowest."""
    parts = _BRACES.split(pattern)
    choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return map("".join, itertools.product(*choices))


def count(pattern: str) -> int:
    """How many texts a pattern stands for."""
    total = 1
    for braces in _BRACES.findall(pattern):
        total *= braces.count(",") + 1
    return total


def fits(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression for whole ids: ``*`` within a part, ``**`` across parts."""
    made = ""
    for i, part in enumerate(_BRACES.split(pattern)):
        choices = [_expression(text) for text in part.split(",")] if i % 2 else [_expression(part)]
        made += f"(?:{'|'.join(choices)})"
    return re.compile(made)


def _expression(text: str) -> str:
    return re.escape(text).replace(r"\*\*", ".*").replace(r"\*", "[^/]*")


def expand(root: Node, problems: Problems) -> Node:
    """The tree of :class:`Expectation` from that of :class:`ExpectationFile`, which it fits.

    Notes a default that no cell fits, a cell that lacks a field, and ids that do not end.
    """
    entries = {key.value: (key, value) for key, value in root.entries}
    defaults = [(fits(_text(item, "match")), item) for item in _items(entries.get("defaults"))]
    used: set[int] = set()
    written = Node("list", *_position(entries["cells"][1]))
    for entry in _items(entries["cells"]):
        pattern = entry.value_of("id")
        if pattern is None or len(written.items) + count(str(pattern.value)) > MOST_CELLS:
            problems.at(entry, f"more than {MOST_CELLS:,} cells")
            break
        for id in ids(str(pattern.value)):
            fields: dict[str, tuple[Node, Node]] = {}
            for number, (matches, default) in enumerate(defaults):
                if matches.fullmatch(id):
                    used.add(number)
                    fields |= {
                        k.value: (k, _filled(v, id) if k.value == "derived" else v)
                        for k, v in default.entries
                        if k.value != "match"
                    }
            fields |= {key.value: (key, value) for key, value in entry.entries}
            fields["id"] = (fields["id"][0], replace(pattern, value=id, raw=id))
            if _PATTERN.search(id):
                problems.at(pattern, f"{id!r} is no cell id: a brace is not closed, or a '*'")
            _lacking(entry, id, fields, problems)
            written.items.append(_map(entry, fields))
    for number, (_, default) in enumerate(defaults):
        if number not in used:
            problems.at(default, f"the default {_text(default, 'match')!r} fits no cell")
    whole = {name: pair for name, pair in entries.items() if name != "defaults"}
    whole["cells"] = (entries["cells"][0], written)
    if "present" in entries:
        whole["present"] = (entries["present"][0], _present(entries["present"][1], problems))
    return _map(root, whole)


def _filled(derived: Node, id: str) -> Node:
    """A derivation with the parts of a cell's id in it."""
    names = {"{group}": id.partition("/")[0], "{row}": id.rpartition("/")[2]}

    def fill(text: str) -> str:
        return re.sub(r"\{[a-z]+\}", lambda name: names.get(name[0], name[0]), text)

    made = Node("map", derived.line, derived.column)
    for key, value in derived.entries:
        if key.value == "cells":
            listed = Node("list", *_position(value))
            listed.items += [
                replace(item, value=fill(str(item.value)), raw=fill(str(item.value)))
                for item in value.items
            ]
            value = listed
        made.add(key, value)
    return made


def _present(listed: Node, problems: Problems) -> Node:
    """Every id of its own."""
    written = Node("list", *_position(listed))
    for item in listed.items:
        if len(written.items) + count(str(item.value)) > MOST_CELLS:
            problems.at(item, f"more than {MOST_CELLS:,} cells")
            break
        written.items += [replace(item, value=id, raw=id) for id in ids(str(item.value))]
    return written


def _lacking(
    entry: Node, id: str, fields: Mapping[str, tuple[Node, Node]], problems: Problems
) -> None:
    for name in REQUIRED:
        if name not in fields:
            problems.at(
                entry,
                f"cell {id!r} lacks the key {name!r}",
                next_step="give it with the cell, or in a default whose 'match' fits",
            )


def _map(like: Node, fields: Mapping[str, tuple[Node, Node]]) -> Node:
    made = Node("map", like.line, like.column)
    for key, value in fields.values():
        made.add(key, value)
    return made


def _items(entry: tuple[Node, Node] | None) -> list[Node]:
    return entry[1].items if entry is not None else []


def _text(node: Node, name: str) -> str:
    child = node.value_of(name)
    return str(child.value) if child is not None else ""


def _position(node: Node) -> tuple[int, int]:
    return node.line, node.column
