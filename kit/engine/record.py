"""What a run leaves: ``record.json``, everything but secrets, and the table with its labels."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import kit
from kit import jsonfile
from kit.durable import write_atomic
from kit.engine import hardware
from kit.engine.code import changed
from kit.engine.environment import LIBRARIES, library_version
from kit.engine.job import log_path
from kit.engine.registry import load_registry
from kit.engine.runner import Outcome
from kit.engine.secrets import recorded_environment, redact_argv
from kit.engine.store import Store
from kit.errors import InvalidInput, StepFailed
from kit.results.files import LABELS, LOGS, RESULTS, SLURM
from kit.results.plan import Plan
from kit.results.record import PinRecord, Record, StepRecord
from kit.results.types import Canary, Results

_OTHERS = ("click", "datasets", "huggingface_hub", "msgspec", "psutil", "rich", "ruamel.yaml")


def add_outcome(record: Record, plan: Plan, outcome: Outcome, folder: Path | None = None) -> None:
    """Fill in what became of the steps, and which logs of theirs are in the run directory."""
    registry = load_registry()
    for instance in plan.instances:
        state = outcome.states[instance.id]
        step = StepRecord(key=instance.key, state=state)
        entry = outcome.entries.get(instance.id)
        if entry is not None:
            step.started, step.seconds = entry.started, entry.seconds
            step.peak_memory_gb = entry.peak_memory_gb
            step.peak_gpu_memory_gb = entry.peak_gpu_memory_gb
            step.outputs, step.code = entry.files, entry.code
            step.stale = changed(entry, registry)
        step.job = outcome.jobs.get(instance.id, "")
        if folder is not None:
            step.logs = _logs(folder, instance.id, step.job)
        record.steps[instance.id] = step
    record.errors = [str(error) for error in outcome.errors]


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
    digests = {use.pin: use.digest for instance in plan.instances for use in instance.pins.values()}
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
    installed = {name: library_version(name) for name in (*LIBRARIES, *_OTHERS)}
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
        versions={
            name: version for name, version in sorted(installed.items()) if version is not None
        },
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


def publish(plan: Plan, outcome: Outcome, store: Store, folder: Path) -> Path:
    """Write ``results.json`` (and ``labels.jsonl`` where there is one) into the run directory.

    The engine, not the results step, says which experiment at which profile this is, because
    equal steps are shared between experiments; and it adds every step's canaries. A canary that
    passed must not hide one of the same name that failed, so both stay.

    Raises:
        StepFailed: The results step wrote something else than results.
    """
    instance = plan.by_id[plan.results]
    source = store.path(instance.key)
    if not (source / RESULTS).is_file():
        raise StepFailed(
            f"the results step left no {RESULTS}",
            where=instance.id,
            next_step=f"its kind {instance.kind} must write the file and promise it as an output",
        )
    try:
        results = jsonfile.read(source / RESULTS, Results)
    except InvalidInput as error:
        raise StepFailed(
            f"{RESULTS} is not what it must be: it {error.what}", where=instance.id, why=error.why
        ) from None
    every = [*_all_canaries(plan, outcome), *results.canaries]
    canaries = {(seen.step, seen.id, seen.passed, seen.detail): seen for seen in every}
    stamped = msgspec.structs.replace(
        results,
        experiment=plan.experiment,
        version=plan.version,
        profile=plan.profile,
        canaries=list(canaries.values()),
    )
    write_atomic(folder / RESULTS, msgspec.json.format(msgspec.json.encode(stamped)) + b"\n")
    if (source / LABELS).is_file():
        shutil.copyfile(source / LABELS, folder / LABELS)
    return folder / RESULTS


def _all_canaries(plan: Plan, outcome: Outcome) -> list[Canary]:
    """Canaries of all steps, under the names that the instances have in this plan."""
    return [
        msgspec.structs.replace(canary, step=instance.id)
        for instance in plan.instances
        if instance.id in outcome.entries
        for canary in outcome.entries[instance.id].canaries
    ]
