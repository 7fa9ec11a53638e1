"""``record.json``: everything about a run that somebody could ask later, and no secret."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

import kit
from kit.engine import hardware
from kit.engine.environment import LIBRARIES, library_version
from kit.engine.job import log_path
from kit.engine.plan import Plan
from kit.engine.rundir import LOGS, SLURM
from kit.engine.runner import Outcome
from kit.engine.secrets import recorded_environment, redact_argv
from kit.engine.store import FileRecord

RECORD_VERSION = 1
_OTHERS = ("click", "datasets", "huggingface_hub", "msgspec", "psutil", "rich", "ruamel.yaml")


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
    errors: list[str] = []

    def add_outcome(self, plan: Plan, outcome: Outcome, folder: Path | None = None) -> None:
        """Fill in what became of the steps, and which logs of theirs are in the run directory."""
        for instance in plan.instances:
            state = outcome.states[instance.id]
            record = StepRecord(key=instance.key, state=state)
            entry = outcome.entries.get(instance.id)
            if entry is not None:
                record.started, record.seconds = entry.started, entry.seconds
                record.peak_memory_gb = entry.peak_memory_gb
                record.peak_gpu_memory_gb = entry.peak_gpu_memory_gb
                record.outputs = entry.files
            record.job = outcome.jobs.get(instance.id, "")
            if folder is not None:
                record.logs = _logs(folder, instance.id, record.job)
            self.steps[instance.id] = record
        self.errors = [str(error) for error in outcome.errors]

    def to_json(self) -> bytes:
        """The bytes of the file."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"


def _logs(folder: Path, instance: str, job: str) -> list[str]:
    paths = [log_path(folder / LOGS, instance)]
    if job:
        paths += [folder / SLURM / f"{job}_0_log.{kind}" for kind in ("out", "err")]
    return [path.relative_to(folder).as_posix() for path in paths if path.exists()]


def code_state(folder: Path | None = None) -> tuple[str | None, bool | None]:
    """Commit of the kit's checkout and whether it has changes; ``None`` outside of git.

    An image has no checkout; it was built with ``$KIT_COMMIT``, whose ``-dirty`` says the latter.
    """
    folder = folder or Path(kit.__file__).resolve().parent
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        built = re.fullmatch(r"([0-9a-f]{40})(-dirty)?", os.environ.get("KIT_COMMIT", ""))
        return (built[1], built[2] is not None) if built else (None, None)
    changes = _git(folder, "status", "--porcelain")
    return commit, None if changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def pin_records(plan: Plan) -> dict[str, PinRecord]:
    """The plan's pins as they are recorded."""
    digests = {use.pin: use.digest for one in plan.instances for use in one.pins.values()}
    return {
        pin.id: PinRecord(
            kind=pin.kind,
            repo=pin.repo,
            revision=pin.revision,
            url=pin.url,
            licence=pin.licence,
            digest=digests.get(pin.id, ""),
            files={file.path: file.sha256 for file in pin.files},
            unconfirmed=pin.unconfirmed,
            unavailable=pin.unavailable,
        )
        for pin in plan.pins
    }


def begin(
    plan: Plan,
    *,
    argv: Sequence[str],
    environ: Mapping[str, str],
    started: str,
    options: dict[str, Any],
) -> Record:
    """The record of a run that starts now."""
    commit, dirty = code_state()
    found = {name: library_version(name) for name in (*LIBRARIES, *_OTHERS)}
    return Record(
        kit_version=kit.__version__,
        experiment=plan.experiment,
        version=plan.version,
        variant=plan.variant,
        profile=plan.profile,
        rehearsal=plan.rehearsal,
        modified=plan.modified,
        seed=plan.seed,
        overrides=redact_argv(plan.overrides, environ),
        notes=plan.notes,
        status="running",
        argv=redact_argv(argv, environ),
        commit=commit,
        dirty=dirty,
        started=started,
        python=platform.python_version(),
        platform=platform.platform(),
        versions={name: version for name, version in sorted(found.items()) if version is not None},
        hardware={
            "cpu": hardware.cpu_model(),
            "cores": hardware.cpu_count(),
            "memory_gb": hardware.memory_gb(),
            "gpus": [msgspec.to_builtins(gpu) for gpu in hardware.gpus()],
        },
        environment=plan.environment,
        variables=recorded_environment(environ),
        options=options,
        pins=pin_records(plan),
    )
