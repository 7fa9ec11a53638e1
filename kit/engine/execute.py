"""Doing one job: lock, build in a workspace, commit.

The same code runs in a worker process, under ``kit step`` and in tests. The lock is held by the
process that does the work, so a killed run never leaves a lock behind.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from kit.durable import write_atomic
from kit.engine import torchrun
from kit.engine.call import Launch, Measured, call
from kit.engine.events import Emit, event, utc_now
from kit.engine.job import Job
from kit.engine.registry import Registry, StepKind
from kit.engine.store import CANARIES, Store, StoredStep
from kit.errors import Preflight, StepFailed
from kit.results.plan import StepInstance


def perform(
    job: Job, registry: Registry, emit: Emit, *, launch: Launch | None = None
) -> StoredStep:
    """Run a job and put its outputs into the store.

    If another run finished the same step while this one waited for the lock, its outputs are taken.

    Args:
        job: What to do.
        registry: Where its kind is.
        emit: Takes the events.
        launch: How the function is called; as the plan says when not given.

    Raises:
        Exception: Whatever the step function raised; nothing is kept of its outputs.
    """
    instance, store = job.instance, Store(Path(job.home))
    kind = registry.get(instance.kind, where=instance.id)
    if kind.version != instance.version:
        raise StepFailed(
            f"the plan was made for {kind.name} version {instance.version}, this is version "
            f"{kind.version}",
            where=instance.id,
            next_step="make the plan again with this version of the kit",
        )
    if launch is None:
        launch = torchrun.launch if instance.launch == "torchrun" else call

    def waiting(holder: str) -> None:
        emit(event("step-waiting", instance.id, holder=holder))

    with contextlib.ExitStack() as stack:
        stack.enter_context(store.lock(instance.key, waiting))
        look = store.look(instance.key, job.check)
        found = look.entry
        if found and not found.dropped and found.input_digests == job.input_digests:
            emit(_ended("step-cached", job, found))
            return found
        if look.problem:
            aside = store.set_aside(instance.key)
            emit(event("step-damaged", instance.id, problem=look.problem, moved_to=aside.name))
        stack.enter_context(store.reading(one.key for found in job.steps.values() for one in found))
        _check_inputs(job, store)
        started, clock = utc_now(), time.monotonic()
        emit(event("step-started", instance.id, key=instance.key))
        with store.workspace(instance.key) as workspace:
            out = workspace / "out"
            out.mkdir()
            scratch = store.begin_scratch(instance.key, job.input_digests)
            measured = launch(job, kind, out, scratch, emit)
            _check_promises(kind, out, instance.id)
            _check_canaries(kind, measured, instance)
            if measured.canaries:
                write_atomic(out / CANARIES, msgspec.json.encode(measured.canaries))
            entry = store.commit(
                instance.key,
                out,
                partial(_record, job, measured, started=started, seconds=time.monotonic() - clock),
            )
        emit(_ended("step-done", job, entry))
        return entry


def _check_inputs(job: Job, store: Store) -> None:
    """What the step reads is still there: it was when the run looked, which may be hours ago."""
    step = job.instance.id
    for one in (one for found in job.steps.values() for one in found):
        look = store.look(one.key, "sizes")
        if look.entry is None or look.entry.dropped:
            raise StepFailed(
                f"what {one.instance} made is not in the store any more"
                + f": {look.problem}" * bool(look.problem),
                where=step,
                why="something deleted or changed it while the run was under way",
                next_step="run the same command again: it is made again, other steps are kept",
            )
    for pin in () if job.rehearsal else job.pins.values():
        if not Path(pin.path).exists():
            raise Preflight(
                f"pin {pin.id!r} is gone: there is nothing at {pin.path}",
                where=step,
                why="something deleted it while the run was under way",
                next_step="kit fetch EXPERIMENT, then run the same command again",
            )


def _record(job: Job, measured: Measured, **fields: Any) -> StoredStep:
    instance = job.instance
    fields["seconds"] = round(fields["seconds"], 3)
    return StoredStep(
        kind=instance.kind,
        version=instance.version,
        instance=instance.id,
        params=instance.params,
        inputs=job.input_keys,
        input_digests=job.input_digests,
        environment=instance.environment,
        peak_memory_gb=measured.peak_memory_gb,
        peak_gpu_memory_gb=measured.peak_gpu_memory_gb,
        canaries=measured.canaries,
        **fields,
    )


def _check_promises(kind: StepKind, out: Path, step: str) -> None:
    """Every promised output must exist; a step that forgets one has not finished."""
    missing = [name for name in kind.outputs if not (out / name).exists()]
    if missing:
        found = ", ".join(sorted(path.name for path in out.iterdir())) or "nothing"
        raise StepFailed(
            f"the step ended without its output {missing[0]!r}",
            where=step,
            why=f"{kind.name} promises {', '.join(kind.outputs)}; it wrote {found}",
        )
    if kind.model is not None:
        folder = out / kind.model.folder
        if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            raise StepFailed(
                f"the output {kind.model.folder!r} is no model",
                where=step,
                why="a model is a folder with config.json and safetensors (and its tokenizer), "
                "which the steps that read it load",
            )


def _check_canaries(kind: StepKind, measured: Measured, instance: StepInstance) -> None:
    """Every declared canary was left, or nobody could tell a mechanism that was not looked at."""
    missing = [id for id in instance.canaries if id not in {one.id for one in measured.canaries}]
    if missing:
        raise StepFailed(
            f"the step ended without its canary {missing[0]!r}",
            where=instance.id,
            why=f"{kind.name} declares {', '.join(kind.canaries)}",
        )


def _ended(name: str, job: Job, entry: StoredStep) -> dict[str, Any]:
    return event(
        name,
        job.instance.id,
        key=job.instance.key,
        digest=entry.digest,
        seconds=entry.seconds,
        peak_memory_gb=entry.peak_memory_gb,
        peak_gpu_memory_gb=entry.peak_gpu_memory_gb,
    )
