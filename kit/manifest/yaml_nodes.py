"""YAML 1.2 text, and so JSON, to a :class:`Node` tree, by the events of ruamel.yaml's pure parser.

Working on events instead of a loader's result keeps three promises cheaply: every value has a
position, every problem of a document is reported and not only the first, and nothing recursive
happens on hostile nesting. What a manifest may not use (anchors, aliases, merge keys, tags,
directives, several documents) is noted as an error while the rest is still read.

Plain scalars follow the core schema and nothing else: no dates, no sexagesimals, no ``yes``/``no``,
no underscores in numbers. Whatever is not null, a bool, an integer or a float is text. Numbers that
cannot be kept exactly enough are refused here, where the text as written is still known.
"""

from __future__ import annotations

import math
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from kit.manifest.source import Node, Problems
from kit.manifest.text import bad_character

MAX_DEPTH = 32
MAX_LINE = 200_000
"""Characters of a line: the parser looks for the end of some things (a tag) again from every place,
and a line of five million exclamation marks would take it minutes."""

_NO_REUSE = "a reader must see every value where it is used; write it out"


def parse_yaml(text: str, problems: Problems) -> Node | None:
    """The tree of one document, or ``None`` when the text has no readable structure."""
    for number, characters in enumerate(map(len, text.split("\n")), start=1):
        if characters > MAX_LINE:
            problems.add(number, 1, f"a line of {characters:,} characters; at most {MAX_LINE:,}")
            return None
    builder = _Builder(problems)
    yaml: Any = YAML(typ="safe", pure=True)
    try:
        for event in yaml.parse(text):
            if not builder.take(event):
                return None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        said = " ".join(str(part) for part in (error.context, error.problem) if part)
        problems.add(line, column, f"not YAML: {said}", next_step=_hint(said))
        return None
    except YAMLError as error:
        problems.add(1, 1, f"not YAML: {str(error).splitlines()[0]}")
        return None
    except (RecursionError, ValueError, TypeError, IndexError, KeyError, AttributeError,
            AssertionError, OverflowError) as error:  # fmt: skip
        # The parser is third-party and the text may be garbage: its own slips are not crashes.
        problems.add(1, 1, f"not YAML: the parser gave up ({type(error).__name__})")
        return None
    if builder.root is None:
        problems.add(1, 1, "the document is empty")
    return builder.root


def _hint(said: str) -> str:
    if "\\t" in said:
        return "indent with spaces, not tabs"
    if "mapping values are not allowed" in said:
        return "put text that contains ': ' in quotes"
    if "could not find expected ':'" in said:
        return "a key needs a colon and a space after it"
    return ""


class _Builder:
    """Turns events into nodes with an explicit stack."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.root: Node | None = None
        self.stack: list[Node] = []
        self.keys: list[Node | None] = []
        self.documents = 0

    def take(self, event: Any) -> bool:
        """Handle one event; ``False`` stops the reading."""
        name = type(event).__name__
        if name == "DocumentStartEvent":
            return self._document(event)
        if name in ("MappingEndEvent", "SequenceEndEvent"):
            self.stack.pop()
            self.keys.pop()
            return True
        if name not in ("ScalarEvent", "AliasEvent", "MappingStartEvent", "SequenceStartEvent"):
            return True
        node = self._node(name, event)
        self._attach(node)
        if name in ("MappingStartEvent", "SequenceStartEvent"):
            if len(self.stack) >= MAX_DEPTH:
                self.problems.at(node, f"nested deeper than {MAX_DEPTH} levels")
                return False
            self.stack.append(node)
            self.keys.append(None)
        return True

    def _document(self, event: Any) -> bool:
        self.documents += 1
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if self.documents > 1:
            self.problems.add(line, column, "a second document in one file")
            return False
        if event.tags or (event.version and tuple(event.version) != (1, 2)):
            self.problems.add(line, column, "directives (%YAML, %TAG) are not used here")
        return True

    def _node(self, name: str, event: Any) -> Node:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if name == "AliasEvent":
            self.problems.add(line, column, f"alias *{_label(event)}", why=_NO_REUSE)
            return Node("scalar", line, column, value="")
        if event.anchor is not None:
            self.problems.add(line, column, f"anchor &{_label(event)}", why=_NO_REUSE)
        if event.tag is not None and str(event.tag) != "!":
            self.problems.add(
                line, column, f"tag {event.tag}", why="types come from the schema, not from tags"
            )
        if name == "MappingStartEvent":
            return Node("map", line, column)
        if name == "SequenceStartEvent":
            return Node("list", line, column)
        return self._scalar(event, line, column)

    def _scalar(self, event: Any, line: int, column: int) -> Node:
        text = str(event.value) if event.style != '"' else _whole(str(event.value))
        node = Node("scalar", line, column, value=text, raw=text, quoted=event.style is not None)
        if not node.quoted:
            node.value, wrong = resolve(text)
            if wrong and self._under("revision"):
                unquoted_revision(node, wrong, self.problems)
            elif wrong:
                self.problems.at(node, wrong, next_step=f'if it is text, quote it: "{text[:60]}"')
        elif wrong := bad_character(text):
            self.problems.at(node, f"{wrong} in a string")
        return node

    def _under(self, name: str) -> bool:
        """Whether the scalar being read is the value of this key."""
        key = self.keys[-1] if self.keys else None
        return key is not None and key.value == name

    def _attach(self, node: Node) -> None:
        if not self.stack:
            self.root = self.root or node
            return
        parent = self.stack[-1]
        if parent.kind == "list":
            parent.items.append(node)
            return
        key = self.keys[-1]
        if key is None:
            self.keys[-1] = self._key(node)
            return
        add_entry(parent, key, node, self.problems)
        self.keys[-1] = None

    def _key(self, node: Node) -> Node:
        if node.kind != "scalar":
            self.problems.at(node, "a list or map cannot be a key")
            return Node("scalar", node.line, node.column, value="")
        if not node.quoted and node.raw == "<<":
            self.problems.at(node, "merge key <<", why=_NO_REUSE)
        elif not isinstance(node.value, str):
            self.problems.at(
                node, f"the key {node.raw or 'null'} is not text", next_step=f'write "{node.raw}":'
            )
            node.value = node.raw
        return node


_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def _whole(text: str) -> str:
    """A text in which the two escapes that JSON writes for a rare character are that character."""
    return _PAIR.sub(
        lambda pair: pair.group().encode("utf-16", "surrogatepass").decode("utf-16"), text
    )


def _label(event: Any) -> str:
    return str(event.anchor)[:40]


def add_entry(parent: Node, key: Node, value: Node, problems: Problems) -> None:
    """Put an entry into a map; a key that is already there is an error and the first one stays."""
    index = parent.index.get(str(key.value))
    if index is None:
        parent.add(key, value)
        return
    line = parent.entries[index][0].line
    problems.at(
        key,
        f"duplicate key {str(key.value)!r}",
        why=f"it stands at line {line} already; only one could be meant",
    )


def unquoted_revision(node: Node, what: str, problems: Problems) -> None:
    """Note a revision that YAML does not read as text."""
    problems.at(
        node,
        f"the revision must be text in quotes; {what}",
        why="YAML reads an unquoted revision such as 0123e45 as a number",
        next_step=f'write revision: "{node.raw[:60]}" (40 hexadecimal digits)',
    )


LARGEST_INTEGER = 2**63 - 1
LARGEST_FLOAT = 1e30
MAX_DIGITS = 64
MAX_CHARACTERS = 400
"""Of a number as written: what is longer is not even read."""
_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE = {"true", "True", "TRUE"}
_FALSE = {"false", "False", "FALSE"}
_INTEGER = re.compile(r"[-+]?[0-9]+", re.ASCII)
_OCTAL = re.compile(r"0o[0-7]+", re.ASCII)
_HEX = re.compile(r"0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NONFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)

Scalar = bool | int | float | str | None


def resolve(text: str) -> tuple[Scalar, str]:
    """Value of an unquoted scalar, and what is wrong with it (empty when nothing is)."""
    if text in _NULL:
        return None, ""
    if text in _TRUE:
        return True, ""
    if text in _FALSE:
        return False, ""
    if _INTEGER.fullmatch(text):
        return _integer(text, 10)
    if _OCTAL.fullmatch(text):
        return _integer(text[2:], 8)
    if _HEX.fullmatch(text):
        return _integer(text[2:], 16)
    if _FLOAT.fullmatch(text):
        return _float(text)
    if _NONFINITE.fullmatch(text):
        return 0.0, f"{text} is not a finite number"
    return text, ""


def _integer(digits: str, base: int) -> tuple[Scalar, str]:
    if len(digits) > MAX_DIGITS:
        return 0, f"an integer of {len(digits)} digits is absurdly large"
    value = int(digits, base)
    if abs(value) > LARGEST_INTEGER:
        return 0, f"the integer {digits} does not fit in 64 bits"
    return value, ""


def _float(text: str) -> tuple[Scalar, str]:
    if len(text) > MAX_CHARACTERS:
        return 0.0, f"a number of {len(text)} characters is absurd"
    value = float(text)
    if not math.isfinite(value) or abs(value) > LARGEST_FLOAT:
        return 0.0, f"the number {text} is absurdly large (read as {value:g})"
    mantissa = re.split("[eE]", text)[0]
    if value == 0.0 and any(digit in mantissa for digit in "123456789"):
        return 0.0, f"the number {text} is too small to be kept (read as 0)"
    return value, ""
