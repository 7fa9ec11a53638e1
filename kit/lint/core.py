"""Findings, rules and how they run.

A rule is a small function over a context; it yields :class:`Hit` and the runner adds what every
finding has: the rule's id, its level, and ``file:line:column``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from kit.engine.registry import Registry
from kit.engine.wiring import Use
from kit.manifest.catalog import Catalog
from kit.manifest.expectation_types import Expectation, ExpectedCell
from kit.manifest.load import Loaded
from kit.manifest.pin_types import Pin, Pins
from kit.manifest.source import Hit, Level
from kit.manifest.types import Manifest


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a rule has to say."""

    level: Level
    rule: str
    where: str
    message: str
    next_step: str = ""

    def render(self) -> str:
        """One greppable line, and an indented one with what to do."""
        line = f"{self.where}: {self.level}: {self.message} [{self.rule}]"
        return f"{line}\n  next: {self.next_step}" if self.next_step else line


@dataclass
class ManifestContext:
    """What rules over a manifest may look at."""

    loaded: Loaded[Manifest]
    catalog: Catalog
    pins: dict[str, Pin]
    registry: Registry

    @property
    def manifest(self) -> Manifest:
        """The manifest."""
        return self.loaded.value

    def uses(self) -> list[Use]:
        """The manifest at each of its profiles."""
        return [
            Use(self.manifest, name, self.registry, self.pins) for name in self.manifest.profiles
        ]


@dataclass
class PinsContext:
    """What rules over a pin file may look at."""

    loaded: Loaded[Pins]
    catalog: Catalog

    @property
    def pins(self) -> list[Pin]:
        """The pins of the file."""
        return self.loaded.value.pins


@dataclass
class ExpectationContext:
    """What rules over an expectation may look at."""

    loaded: Loaded[Expectation]
    catalog: Catalog

    @property
    def expectation(self) -> Expectation:
        """The expectation."""
        return self.loaded.value

    def cells(self) -> dict[str, ExpectedCell]:
        """Cell id -> the first cell of that id."""
        by_id: dict[str, ExpectedCell] = {}
        for cell in self.expectation.cells:
            by_id.setdefault(cell.id, cell)
        return by_id


C = TypeVar("C", bound=ManifestContext | PinsContext | ExpectationContext)


@dataclass(frozen=True)
class Rule(Generic[C]):
    """A named check."""

    id: str
    level: Level
    check: Callable[[C], Iterable[Hit]]

    @property
    def doc(self) -> str:
        """First line of the rule's docstring."""
        return (self.check.__doc__ or "").strip().splitlines()[0]


class RuleSet(Generic[C]):
    """The rules over one kind of document, in the order in which they were written."""

    def __init__(self) -> None:
        self.rules: list[Rule[C]] = []

    def rule(
        self, id: str, level: Level = "error"
    ) -> Callable[[Callable[[C], Iterable[Hit]]], Callable[[C], Iterable[Hit]]]:
        """Register a function as a rule."""

        def register(check: Callable[[C], Iterable[Hit]]) -> Callable[[C], Iterable[Hit]]:
            if any(rule.id == id for rule in self.rules):
                raise ValueError(f"lint rule {id!r} is registered twice")
            self.rules.append(Rule(id, level, check))
            return check

        return register

    def run(self, context: C) -> Iterator[Finding]:
        """All findings of all rules."""
        loaded: Loaded[Any] = context.loaded
        for rule in self.rules:
            for hit in rule.check(context):
                yield Finding(
                    level=hit.level or rule.level,
                    rule=rule.id,
                    where=loaded.locate(hit.path, key=hit.key),
                    message=hit.message,
                    next_step=hit.next_step,
                )


MANIFEST: RuleSet[ManifestContext] = RuleSet()
PINS: RuleSet[PinsContext] = RuleSet()
EXPECTATION: RuleSet[ExpectationContext] = RuleSet()


def waived(note: str, rule: str) -> bool:
    """Whether a cell's note speaks about a rule by name (``grim: ...``)."""
    return f"{rule}:" in note.lower()
