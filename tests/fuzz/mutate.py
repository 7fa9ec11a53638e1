"""Structured mutations of manifests, pins and expectations: what a generic fuzzer rarely hits on.

A document that is JSON is changed as a tree (values replaced by hostile ones, subtrees moved,
doubled, dropped, keys renamed); any other text line by line, keeping its indentation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63 - 1, -(2**63), 2**64, 10**30, 0.0, -0.0, 1e-300,
    1e30, 1.5, [], {}, [[]], [{}], [None], {"": None}, {"value": 1, "source": "x"},
    {"id": "x"}, {"id": ".."}, {"pin": "x"}, {"step": "x"}, "", " ", ".", "..", "/", "~", "x",
    "../../../etc/passwd", "/etc/passwd", "..\\..\\x", "file:///etc/passwd", "http://x/", "C:\\x",
    "$(touch x)", "`touch x`", "; rm -rf x", "{{7*7}}", "%s%n", "${x}", "${}", "${pair}",
    "${pair.id}", "${pair.x.y}", "${pins.x}", "${pins.}", "${cell.seed}", "a${pair.id}b",
    "__import__('os').system('x')", "!!python/object/apply:os.system [x]", "<<", "*a", "&a",
    "<script>alert(1)</script>", "&amp;", "\x1b[31m", "\x00", "\x7f", "\u202e", "\u2028", "\ufeff",
    "\ud800", "\U0001f600", "١٢", "１２", "1_0", "0x41", "0o7", "1e5", "1e400", "-1e400", "1e-400",
    "1e999999999", "1e-999999999", "NaN", "Infinity", "-inf", "nan", "12:30", "2026-11-21", "yes",
    "9" * 5000, "0." + "0" * 300 + "1", "a" * 70, "a" * 20000, "(" * 500, "-" * 300, "a-b.c/d@e",
    "1-A", "2-B", "mini", "paper", "exact", "binomial", "seeds", "trajectory", "bound", "paired",
    "flip", "relative", "absolute", "at_most", "at_least", "percent", "fraction", "count", "ratio",
    "order", "threshold", "direction", "within", "gap_closed", "reported", "reference", "running",
    "labels.jsonl#x", "../labels.jsonl#x", "con", "train[pair=x]", "results", "id", "seed", "0",
    "-0", "0.5", "100", "-5", "208", "1/3", "+1", "00", "1.", ".5",
)  # fmt: skip
_LINES = (
    "<<: *a", "a: &a b", "b: *a", "? [a]", "? {a: b}: c", "---", "...", "%YAML 1.1", "%TAG ! x",
    "- !!binary aGk=", "x: !!python/name:os.system", "x: |", "x: >-", "x: >+9", "x: |0", "\t- x",
    "x: [", "x: {", "]", "}", "x: 'a", 'x: "\\x00"', 'x: "\\uD800"', 'x: "\\U00110000"', "- - - -",
    "x: !<tag:yaml.org,2002:str> y", "# \x00", "x: 0x" + "f" * 70, "x: 1e400", "x: .inf", ": x",
    "x: " + "[" * 40, "!", "&", "*", "@", "`", "x: @y", "x:\u00a0y", "\ufeff", "\x85", "\u2028",
)  # fmt: skip


def mutate(data: bytes, seed: int, most: int = 4) -> bytes:
    """Another document, from this one by up to ``most`` changes."""
    chance = Random(seed)
    text = data.decode("utf-8", "replace")
    tree: Any = None
    if text[:1] in ("{", "["):
        try:
            tree = json.loads(text)
        except (ValueError, RecursionError):
            tree = None
    for _ in range(chance.randint(1, most)):
        if isinstance(tree, dict | list) and tree:
            _change_tree(tree, chance)
        else:
            text = _change_lines(text, chance)
    if tree is not None:
        text = json.dumps(tree, ensure_ascii=chance.random() < 0.3)
        if chance.random() < 0.1:
            text = "# flow\n" + text  # the same document, by the other parser
    return text.encode("utf-8", "surrogatepass")


def _change_tree(tree: Any, chance: Random) -> None:
    parents = _parents(tree)
    parent = chance.choice(parents)
    other = chance.choice(parents)
    place = _place(parent, chance)
    act = chance.random()
    if act < 0.55:
        parent[place] = _copy(chance.choice(_fitting(parent[place], chance)))
    elif act < 0.65:
        del parent[place]
    elif act < 0.80:
        parent[place] = _copy(other[_place(other, chance)])
    elif act < 0.90 and isinstance(parent, list):
        parent.insert(chance.randrange(len(parent) + 1), _copy(parent[place]))
    elif isinstance(parent, dict):
        key = chance.choice([one for one in HOSTILE if isinstance(one, str)])
        parent[key if chance.random() < 0.5 else f"{place}x"] = _copy(parent[place])
        if chance.random() < 0.5:
            del parent[place]


_NUMBERS = [one for one in HOSTILE if isinstance(one, str) and any(c.isdigit() for c in one)]
_NUMERIC = [one for one in HOSTILE if isinstance(one, int | float)]
_WORDS = [one for one in HOSTILE if isinstance(one, str)]


def _fitting(value: Any, chance: Random) -> Sequence[Any]:
    """Half of the time something of the same type, which comes through the schema."""
    if chance.random() < 0.5:
        return HOSTILE
    if isinstance(value, str):
        return _NUMBERS if value[:1] in "+-0123456789" else _WORDS
    return _NUMERIC if isinstance(value, int | float) else HOSTILE


def _place(parent: Any, chance: Random) -> Any:
    return chance.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))


def _parents(tree: Any) -> list[Any]:
    """Every list and map with something in it; deep ones as likely as shallow ones."""
    found, todo = [], [tree]
    while todo:
        one = todo.pop()
        if isinstance(one, dict | list) and one:
            found.append(one)
            todo.extend(one.values() if isinstance(one, dict) else one)
    return found or [[None]]


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _change_lines(text: str, chance: Random) -> str:
    lines = text.split("\n")
    at = chance.randrange(len(lines))
    line = lines[at]
    indent = line[: len(line) - len(line.lstrip(" -"))]
    act = chance.random()
    if act < 0.35 and ":" in line:
        lines[at] = line.partition(":")[0] + ": " + _scalar(chance)
    elif act < 0.5:
        lines.insert(at, indent + chance.choice(_LINES))
    elif act < 0.6:
        del lines[at]
    elif act < 0.7:
        lines.insert(chance.randrange(len(lines) + 1), line)
    elif act < 0.8:
        lines[at] = (" " * chance.randrange(5)) + line.lstrip(" ")
    elif act < 0.9:
        cut = chance.randrange(len(line) + 1)
        lines[at] = line[:cut] + chance.choice("&*!|>%@`{}[],:?-#'\"\\\t\x00\x1b") + line[cut:]
    else:
        lines[at] = indent + _scalar(chance)
    return "\n".join(lines)


def _scalar(chance: Random) -> str:
    value = chance.choice(HOSTILE)
    if isinstance(value, str) and chance.random() < 0.5:
        return value
    return json.dumps(value)
