"""``record.json``: what a run says about itself."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from kit.plural import plural

RECORD_VERSION = 1


class FileRecord(Struct, frozen=True, gc=False):
    """One output file."""

    sha256: str
    size: int


class StepRecord(Struct, kw_only=True, omit_defaults=True):
    """One step instance of a run."""

    key: str
    state: str
    started: str = ""
    """When it really ran; for a cached step that was in an earlier run."""
    seconds: float = 0.0
    peak_memory_gb: float = 0.0
    peak_gpu_memory_gb: float = 0.0
    outputs: dict[str, FileRecord] = {}
    code: str = ""
    """Digest of the code that made it; older records have none."""
    stale: bool = False
    """Taken from the store although its code had changed by the time of this run."""
    job: str = ""
    """Id of the cluster job that ran it."""
    logs: list[str] = []
    """What it and its job printed, relative to the run directory."""


class PinRecord(Struct, kw_only=True, omit_defaults=True):
    """One input of a run."""

    kind: str
    repo: str | None = None
    revision: str | None = None
    url: str | None = None
    licence: str = ""
    digest: str = ""
    files: dict[str, str | None] = {}
    """Path -> sha256."""
    unconfirmed: str | None = None
    unavailable: str | None = None


class Blind(Struct, frozen=True, kw_only=True):
    """That expectations were closed until the results were hashed."""

    from_store: int
    """Steps that were taken from the store; how they were made this run cannot say."""

    @property
    def words(self) -> str:
        """Half a line, for the end of a run and the head of a report."""
        cached = f"; {plural(self.from_store, 'step')} cached" if self.from_store else ""
        return f"results hashed before the expectation was read{cached}"


class Record(Struct, kw_only=True):
    """The file."""

    schema_version: int = RECORD_VERSION
    kit_version: str
    experiment: str
    version: str
    variant: str
    profile: str
    rehearsal: bool
    modified: bool
    seed: int | None
    overrides: list[str]
    notes: list[str]
    status: str
    """``running``, ``finished``, ``failed`` or ``interrupted``."""
    argv: list[str]
    commit: str | None
    dirty: bool | None
    started: str
    ended: str | None = None
    seconds: float | None = None
    python: str
    platform: str
    versions: dict[str, str]
    hardware: dict[str, Any]
    environment: dict[str, Any]
    variables: dict[str, str]
    """Environment variables, from a list of harmless ones."""
    options: dict[str, Any] = {}
    pins: dict[str, PinRecord] = {}
    steps: dict[str, StepRecord] = {}
    results_sha256: str = ""
    """Of ``results.json`` as the run wrote it; empty when there is none."""
    blind: Blind | None = None
    errors: list[str] = []

    def to_json(self) -> bytes:
        """The bytes of the file."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"
