"""Per-item labels: one JSON object a line, referred to as ``labels.jsonl#<id>``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from kit import jsonfile
from kit.errors import InvalidInput
from kit.plural import plural


class Labels(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a label file. Further keys of the line are ignored."""

    id: str
    items: list[str | int] = []
    """Identity of each item; the same string on two sides is the same prompt."""
    labels: list[int | bool]
    """1 where the item counts into k, else 0."""
    choices: list[str] = []
    """Multiple choice: the letter picked for each item."""
    answers: list[str] = []
    """Multiple choice: the right letter of each item."""

    @property
    def n(self) -> int:
        """Number of items."""
        return len(self.labels)

    @property
    def k(self) -> int:
        """Number of ones."""
        return sum(self.labels)


class LabelSource(Protocol):
    """Where labels come from: files of a run, or memory."""

    def get(self, reference: str) -> Labels:
        """The labels behind ``file#id``; raises :class:`InvalidInput` naming the file."""
        ...


class LabelFiles:
    """Reads label files below some folders, each once.

    Args:
        roots: Folders that a reference may be relative to, first match wins.
    """

    def __init__(self, *roots: Path) -> None:
        self._roots = [root.resolve() for root in roots]
        self._files: dict[Path, dict[str, Labels]] = {}
        self._paths: dict[str, Path] = {}

    def get(self, reference: str) -> Labels:
        """The labels behind ``file#id``; a file with one line needs no id."""
        name, _, key = reference.partition("#")
        if name not in self._paths:
            self._paths[name] = self._find(name)
        path = self._paths[name]
        if path not in self._files:
            self._files[path] = read_labels(path)
        lines = self._files[path]
        if not key and len(lines) == 1:
            return next(iter(lines.values()))
        if key not in lines:
            raise InvalidInput(
                f"no line with id {key!r}",
                where=str(path),
                why=f"a cell refers to it as {reference!r}",
                next_step="run the experiment again, or restore the file from the run's store",
            )
        return lines[key]

    def _find(self, name: str) -> Path:
        for root in self._roots:
            with contextlib.suppress(OSError, ValueError):  # no name for any file
                path = (root / name).resolve()
                if path.is_file() and path.is_relative_to(root):
                    return path
        raise InvalidInput(
            f"labels file {name!r} is missing",
            where=str(self._roots[0] / name) if self._roots else name,
            why="the cell is compared item by item, and its count is checked against the labels",
            next_step="restore the file, or run the experiment again",
        )


class LabelTable:
    """Labels held in memory, for tables brought from elsewhere and for planted deviations."""

    def __init__(
        self, lines: dict[str, Labels] | None = None, fallback: LabelSource | None = None
    ) -> None:
        self.lines = dict(lines or {})
        self._fallback = fallback

    def get(self, reference: str) -> Labels:
        """The labels of this reference."""
        if reference in self.lines:
            return self.lines[reference]
        if self._fallback is None:
            raise InvalidInput(f"labels {reference!r} are missing", where=reference)
        return self._fallback.get(reference)


def read_labels(path: Path) -> dict[str, Labels]:
    """All lines of a label file by id.

    Raises:
        InvalidInput: Broken JSON, a missing field, labels other than 0 and 1, lists of unequal
            length, an id twice; each names file and line.
    """
    lines: dict[str, Labels] = {}
    for number, line in jsonfile.lines(path, Labels):
        problem = _problem(line, lines)
        if problem:
            raise InvalidInput(problem, where=f"{path}:{number}")
        lines[line.id] = line
    return lines


def _problem(line: Labels, seen: dict[str, Labels]) -> str:
    if line.id in seen:
        return f"id {line.id!r} stands twice"
    if any(label not in (0, 1) for label in line.labels):
        return f"field 'labels' of {line.id!r} holds something other than 0 and 1"
    for name in ("items", "choices", "answers"):
        entries = getattr(line, name)
        if entries and len(entries) != line.n:
            values = plural(len(entries), "value")
            return f"field {name!r} of {line.id!r}: {values} for {line.n} labels"
    if len(set(line.items)) != len(line.items):
        return f"field 'items' of {line.id!r} names an item twice"
    return ""
