"""A document read from disk, with the line and column of every value.

The tree is kept beside the plain data so that any later rule (schema, lint, a step's own parameter
check) can point at the place a human has to edit.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kit.errors import InvalidInput, KitError, Many


def nearest(word: str, choices: Iterable[str]) -> str:
    """``did you mean 'x'?``, or empty when nothing is near."""
    matches = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"did you mean {matches[0]!r}?" if matches else ""


PathTuple = tuple[str | int, ...]
"""A place in a document: keys and list indices from the root. Of a list whose items have ids, an id
stands for an item too."""

Level = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Hit:
    """A place and a message.

    Attributes:
        path: Place in the document.
        message: What is wrong, one sentence.
        next_step: What to do.
        level: Instead of the rule's own level.
        key: Point at the key instead of the value.
    """

    path: PathTuple
    message: str
    next_step: str = ""
    level: Level | None = None
    key: bool = False


@dataclass(slots=True)
class Node:
    """One value of a document. Lines and columns start at 1."""

    kind: Literal["map", "list", "scalar"]
    line: int
    column: int
    value: Any = None
    """For a scalar: the resolved value."""
    raw: str = ""
    """For a scalar: the text as written, so that messages can quote it."""
    quoted: bool = False
    entries: list[tuple[Node, Node]] = field(default_factory=list)
    """For a map: (key, value), in file order; keys are scalar nodes with a string value."""
    items: list[Node] = field(default_factory=list)
    index: dict[str, int] = field(default_factory=dict)
    """For a map: key -> position in ``entries``."""

    def add(self, key: Node, value: Node) -> None:
        """Append an entry to a map; the caller has made sure that the key is new."""
        self.index[key.value] = len(self.entries)
        self.entries.append((key, value))

    def child(self, step: str | int) -> tuple[Node | None, Node] | None:
        """The (key node, value node) below, or ``None`` when there is no such child."""
        if self.kind == "map" and isinstance(step, str):
            index = self.index.get(step)
            return None if index is None else self.entries[index]
        if self.kind == "list" and isinstance(step, int) and 0 <= step < len(self.items):
            return None, self.items[step]
        if self.kind == "list" and isinstance(step, str):
            ids = [(item, item.value_of("id")) for item in self.items]
            named = [item for item, id in ids if id is not None and id.value == step]
            # Of a thing that stands twice the second is the one too many.
            return (None, named[-1]) if named else None
        return None

    def value_of(self, key: str) -> Node | None:
        """The value of a map's key, if it is a map and has it."""
        entry = self.child(key) if self.kind == "map" else None
        return entry[1] if entry is not None else None

    def plain(self) -> Any:
        """The tree as dicts, lists and scalars."""
        if self.kind == "map":
            return {key.value: value.plain() for key, value in self.entries}
        if self.kind == "list":
            return [item.plain() for item in self.items]
        return self.value


@dataclass(frozen=True)
class Source:
    """A parsed document.

    Attributes:
        name: Path as shown in messages.
        path: Path on disk.
        root: Tree with positions.
    """

    name: str
    path: Path
    root: Node

    def node(self, path: Sequence[str | int]) -> Node | None:
        """The value at ``path``, or ``None``."""
        node = self.root
        for step in path:
            entry = node.child(step)
            if entry is None:
                return None
            node = entry[1]
        return node

    def position(self, path: Sequence[str | int], *, key: bool = False) -> tuple[int, int]:
        """Line and column of the value (or its key) at ``path``, or of its nearest parent."""
        node = self.root
        position = (node.line, node.column)
        for step in path:
            entry = node.child(step)
            if entry is None:
                return position
            key_node, node = entry
            anchor = key_node if key and key_node is not None else node
            position = (anchor.line, anchor.column)
        return position

    def locate(self, path: Sequence[str | int] = (), *, key: bool = False) -> str:
        """``file:line:column`` of the value at ``path``, or of its nearest existing parent."""
        line, column = self.position(path, key=key)
        return f"{self.name}:{line}:{column}"


MOST_PROBLEMS = 200
"""After so many, reading stops: a file of five million control characters is one mistake."""


class Problems:
    """Collects the errors of one document, so that all are reported together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.errors: list[tuple[int, int, KitError]] = []

    def add(self, line: int, column: int, what: str, *, why: str = "", next_step: str = "") -> None:
        """Note an error at a place.

        Raises:
            Many: There are too many already; nothing more is read.
        """
        where = f"{self.name}:{line}:{column}"
        error = InvalidInput(what, where=where, why=why, next_step=next_step)
        self.errors.append((line, column, error))
        if len(self.errors) >= MOST_PROBLEMS:
            more = InvalidInput(f"{MOST_PROBLEMS} problems; the rest was not read", where=where)
            raise Many([*self.sorted(), more])

    def at(self, node: Node, what: str, *, why: str = "", next_step: str = "") -> None:
        """Note an error at a node."""
        self.add(node.line, node.column, what, why=why, next_step=next_step)

    def merge(self, other: Problems) -> None:
        """Take over the errors of places that have none yet."""
        taken = {item[:2] for item in self.errors}
        self.errors += [item for item in other.errors if item[:2] not in taken]

    def sorted(self) -> list[KitError]:
        """The errors in file order."""
        return [item[2] for item in sorted(self.errors, key=lambda item: item[:2])]


def shown(path: Path) -> str:
    """``path`` relative to the working directory when it lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
