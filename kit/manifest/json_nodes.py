"""Strict JSON text to a :class:`Node` tree. Iterative, so that nesting cannot exhaust the stack."""

from __future__ import annotations

import json
import re
from typing import Literal

from kit.manifest.scalars import resolve
from kit.manifest.source import Node, Problems
from kit.manifest.text import bad_character
from kit.manifest.yaml_nodes import MAX_DEPTH, add_entry

_SPACE = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WORD = re.compile(r"(?:true|false|null)\b")


class NotJson(Exception):
    """Where and why the text is not JSON; an empty reason means that the problem is noted."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


def parse_json(text: str, problems: Problems) -> Node:
    """The tree of one JSON document.

    Raises:
        NotJson: Somewhere the text is not JSON.
    """
    return _Parser(text, problems).document()


def position(text: str, offset: int) -> tuple[int, int]:
    """Line and column, from 1, of an offset."""
    return text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1


class _Parser:
    def __init__(self, text: str, problems: Problems) -> None:
        self.text = text
        self.problems = problems
        self.at = 0
        self.line = 1
        self.line_start = 0
        self.counted = 0

    def document(self) -> Node:
        root = self._value()
        stack: list[Node] = []
        if root.kind != "scalar":
            stack.append(root)
        while stack:
            if len(stack) > MAX_DEPTH:
                node = stack[-1]
                self.problems.at(node, f"nested deeper than {MAX_DEPTH} levels")
                raise NotJson(self.at, "")
            self._entry(stack)
        self._skip()
        if self.at < len(self.text):
            raise NotJson(self.at, "text after the end of the document")
        return root

    def _entry(self, stack: list[Node]) -> None:
        """Read one entry (or the end) of the innermost open map or list."""
        node = stack[-1]
        closing = "}" if node.kind == "map" else "]"
        self._skip()
        if self._here() == closing:
            self.at += 1
            stack.pop()
            return
        if node.entries or node.items:
            self._expect(",")
            self._skip()
            if self._here() == closing:
                raise NotJson(self.at, f"a comma before {closing!r}")
        if node.kind == "map":
            key = self._string()
            self._skip()
            self._expect(":")
            value = self._value()
            add_entry(node, key, value, self.problems)
        else:
            value = self._value()
            node.items.append(value)
        if value.kind != "scalar":
            stack.append(value)

    def _value(self) -> Node:
        self._skip()
        character = self._here()
        if character in "{[" and character:
            kind: Literal["map", "list"] = "map" if character == "{" else "list"
            node = self._node(kind)
            self.at += 1
            return node
        if character == '"':
            return self._string()
        found = _WORD.match(self.text, self.at) or _NUMBER.match(self.text, self.at)
        if found is None:
            raise NotJson(self.at, "expected a value")
        node = self._node("scalar")
        node.raw = found.group()
        node.value, wrong = resolve(node.raw)
        if wrong:
            self.problems.at(node, wrong)
        self.at = found.end()
        return node

    def _string(self) -> Node:
        found = _STRING.match(self.text, self.at)
        if found is None:
            opened = self._here() == '"'
            raise NotJson(
                self.at,
                "a string that is not closed on its line"
                if opened
                else "expected a string in double quotes",
            )
        node = self._node("scalar")
        node.quoted = True
        try:
            node.value = json.loads(found.group())
        except ValueError as error:
            raise NotJson(self.at, f"bad string: {str(error).split(':')[0]}") from None
        node.raw = node.value
        if wrong := bad_character(node.value):
            self.problems.at(node, f"{wrong} in a string")
        self.at = found.end()
        return node

    def _node(self, kind: Literal["map", "list", "scalar"]) -> Node:
        line, column = self.place(self.at)
        return Node(kind, line, column)

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset at or after the last one asked for."""
        lines = self.text.count("\n", self.counted, offset)
        if lines:
            self.line += lines
            self.line_start = self.text.rfind("\n", 0, offset) + 1
        self.counted = offset
        return self.line, offset - self.line_start + 1

    def _skip(self) -> None:
        found = _SPACE.match(self.text, self.at)
        assert found is not None
        self.at = found.end()

    def _here(self) -> str:
        return self.text[self.at : self.at + 1]

    def _expect(self, character: str) -> None:
        if self._here() != character:
            raise NotJson(self.at, f"expected {character!r}")
        self.at += 1
