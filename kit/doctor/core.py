"""Findings of the doctor and what a run needs."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Level = Literal["OK", "WARN", "FAIL"]


class Check(Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    level: Level
    what: str
    """Short name, for grep."""
    detail: str
    mend: str = ""
    """What to type or do."""

    def render(self) -> str:
        """One line, and an indented one with the remedy."""
        line = f"{self.level:4}  {self.what}: {self.detail}"
        return f"{line}\n      mend: {self.mend}" if self.mend else line


class Needs(Struct, frozen=True, kw_only=True):
    """What a run asks of the machine; zero when nothing in particular is to be run."""

    gpus: int = 0
    gpu_memory_gb: float = 0.0
    memory_gb: float = 0.0
    disk_gb: float = 0.0
    extra: str = "cpu"
    """The set of optional dependencies: ``cpu`` or ``gpu``."""
    without: frozenset[str] = frozenset()
    """Packages of that set that no step asks for by name, and which may therefore be missing."""
    shared: tuple[str, ...] = ()
    """How steps share their work among these GPUs, a sentence each."""
    instead: str = ""
    """What to type where this machine's GPUs are others but would do."""


def ok(what: str, detail: str) -> Check:
    """All is well."""
    return Check(level="OK", what=what, detail=detail)


def warn(what: str, detail: str, mend: str = "") -> Check:
    """It may work."""
    return Check(level="WARN", what=what, detail=detail, mend=mend)


def fail(what: str, detail: str, mend: str = "") -> Check:
    """It will not work."""
    return Check(level="FAIL", what=what, detail=detail, mend=mend)
