"""The process in which steps run, and how one is done: lock, call its function, commit.

The worker reads one job a line from its standard input and answers with events, one a line, on what
was its standard output. The two descriptors 1 and 2 are then pointed at the step's log file, so
that nothing a library prints can mix with the events. A step's lock is held by the process that
does the work, so a killed run never leaves a lock behind.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from msgspec import Struct

from kit.durable import write_atomic
from kit.engine.blind import close_if_blind
from kit.engine.code import changed, code_digest
from kit.engine.context import STOP, StepContext, Stopped
from kit.engine.early import Ahead, Early, prepare
from kit.engine.events import STEP_ENDS, Emit, Event, encode, event, utc_now
from kit.engine.failures import Carried, failure_of
from kit.engine.hardware import GIB
from kit.engine.job import Job
from kit.engine.process import lines_or_death
from kit.engine.registry import Registry, StepKind, load_registry, params_of
from kit.engine.secrets import redact
from kit.engine.store import CANARIES, Store, StoredStep
from kit.errors import Preflight, StepFailed
from kit.results.plan import StepInstance
from kit.results.types import Canary


class Measured(Struct, kw_only=True):
    """What running a step function yielded besides its files."""

    peak_memory_gb: float = 0.0
    peak_gpu_memory_gb: float = 0.0
    canaries: list[Canary] = []


Launch = Callable[[Job, StepKind, Path, Path, Emit], Measured]
"""Runs the step function of a job with its output and scratch folders."""


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
    launch = launch or _launch_of(job)

    def waiting(holder: str) -> None:
        emit(event("step-waiting", instance.id, holder=holder))

    with contextlib.ExitStack() as stack:
        stack.enter_context(store.lock(instance.key, waiting))
        look = store.look(instance.key, job.check)
        entry = look.entry
        old = job.fresh and changed(entry, registry)
        if entry and not (entry.dropped or old) and entry.input_digests == job.input_digests:
            emit(_ended("step-cached", job, entry))
            return entry
        if look.problem:
            aside = store.set_aside(instance.key)
            emit(event("step-damaged", instance.id, problem=look.problem, moved_to=aside.name))
        stack.enter_context(store.reading(source.key for source in job.sources))
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
                partial(
                    _record,
                    job,
                    measured,
                    code=code_digest(kind, instance.params),
                    started=started,
                    seconds=time.monotonic() - clock,
                ),
            )
        emit(_ended("step-done", job, entry))
        return entry


def _launch_of(job: Job) -> Launch:
    if job.instance.launch == "torchrun":
        from kit.engine import torchrun  # which calls back into this module

        return torchrun.launch
    return call


def _check_inputs(job: Job, store: Store) -> None:
    """What the step reads is still there: it was when the run looked, which may be hours ago."""
    step = job.instance.id
    for source in job.sources:
        look = store.look(source.key, "sizes")
        if look.entry is None or look.entry.dropped:
            raise StepFailed(
                f"what {source.instance} made is not in the store any more"
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
        written = ", ".join(sorted(path.name for path in out.iterdir())) or "nothing"
        raise StepFailed(
            f"the step ended without its output {missing[0]!r}",
            where=step,
            why=f"{kind.name} promises {', '.join(kind.outputs)}; it wrote {written}",
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
    left = {canary.id for canary in measured.canaries}
    missing = [id for id in instance.canaries if id not in left]
    if missing:
        raise StepFailed(
            f"the step ended without its canary {missing[0]!r}",
            where=instance.id,
            why=f"{kind.name} declares {', '.join(kind.canaries)}",
        )


def _ended(name: str, job: Job, entry: StoredStep) -> Event:
    return event(
        name,
        job.instance.id,
        key=job.instance.key,
        digest=entry.digest,
        seconds=entry.seconds,
        peak_memory_gb=entry.peak_memory_gb,
        peak_gpu_memory_gb=entry.peak_gpu_memory_gb,
    )


def call(
    job: Job,
    kind: StepKind,
    out: Path,
    scratch: Path,
    emit: Emit,
    *,
    ahead: Ahead | None = None,
) -> Measured:
    """Call the step function in this process; ``ahead`` is what this process made for the job."""
    for item in ahead.events if ahead is not None else ():
        emit(item)
    context = StepContext(
        job,
        kind,
        store=Store(Path(job.home)),
        out=out,
        scratch=scratch,
        emit=emit,
        ahead=None if ahead is None else ahead.made,
    )
    params = params_of(kind, job.instance.params)
    _reset_peaks()
    STOP.begin()
    try:
        kind.run(context, params)
    except Exception as error:
        left = context.left()
        if left:
            error.add_note(left)
        raise
    return Measured(
        peak_memory_gb=peak_memory_gb(),
        peak_gpu_memory_gb=_peak_gpu_memory_gb(),
        canaries=context.canaries,
    )


def _reset_peaks() -> None:
    """Forget earlier peaks (Linux: writing 5 to ``clear_refs`` resets the high-water mark)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    if torch := _torch_on_gpu():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_gb() -> float:
    """Peak resident memory of this process, of the step alone where the kernel can tell."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / GIB, 4)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / GIB, 4)


def _peak_gpu_memory_gb() -> float:
    """Peak memory that torch held on the GPUs of this process, the largest one."""
    if torch := _torch_on_gpu():
        devices = range(torch.cuda.device_count())
        return round(float(max(torch.cuda.max_memory_reserved(i) for i in devices)) / GIB, 4)
    return 0.0


def _torch_on_gpu() -> Any:
    """torch where the step used a GPU by it; never imported for this."""
    torch = sys.modules.get("torch")
    used = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    return torch if used else None


def heed_signals() -> None:
    """Let SIGTERM unwind the running step, so that its workspace is removed; ignore SIGINT.

    A step that asks when to save goes on until it has; a second signal does not wait for that.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if STOP.asked or not STOP.waits:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        STOP.ask()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run decides, also for a Ctrl-C


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Send descriptors 1 and 2 to a file; an empty file is removed afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    saved = [(number, os.dup(number)) for number in (1, 2)]
    for number, _ in saved:
        os.dup2(handle, number)
    os.close(handle)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)
        with contextlib.suppress(OSError):
            if path.stat().st_size == 0:
                path.unlink()


@contextlib.contextmanager
def traceback_kept() -> Iterator[None]:
    """Write the traceback of what is raised to standard error, which is the step's log."""
    try:
        yield
    except Exception as error:
        carried = error.failure.traceback if isinstance(error, Carried) else ""
        sys.stderr.write(carried or redact("".join(traceback.format_exception(error))))
        raise


def serve(events: int, early: Early | None) -> None:
    """Do jobs until the parent closes the pipe.

    Args:
        events: Descriptor to write events to.
        early: What to do before the first job.
    """

    def emit(item: Event) -> None:
        line = encode(item)
        while line:
            line = line[os.write(events, line) :]

    jobs = lines_or_death(sys.stdin.buffer)
    decoder = msgspec.json.Decoder(Job)
    registry = load_registry()
    facts: dict[str, Any] = {}
    ahead: Ahead | None = None
    if early is not None:
        facts, ahead = prepare(early, lambda: not jobs.empty())
        facts["memory_gb"] = peak_memory_gb()
    emit(event("worker-ready", pid=os.getpid(), **facts))
    while True:
        job = decoder.decode(jobs.get())
        step, ends = job.instance.id, list[Event]()
        mine = ahead is not None and ahead.key == job.instance.key
        launch = partial(call, ahead=ahead) if mine else None
        ahead = None

        def hear(item: Event, ends: list[Event] = ends) -> None:
            (ends.append if item["event"] in STEP_ENDS else emit)(item)

        try:
            with output_to(Path(job.log)), traceback_kept():
                perform(job, registry, hear, launch=launch)
            # Now that lock and log are closed: who hears of the end may kill this process.
            for item in ends:
                emit(item)
        except Stopped:
            emit(event("step-stopped", step))
            return
        except Exception as error:
            failure = msgspec.to_builtins(failure_of(error, home=Path(job.home), step=step))
            emit(event("step-failed", step, failure=failure))


def main() -> None:
    """Run a worker; its parent closes the pipe to end it.

    An argument says what it does before its first job.
    """
    heed_signals()
    close_if_blind()
    events = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    with contextlib.suppress(Stopped):
        early = msgspec.json.decode(sys.argv[1], type=Early) if sys.argv[1:] else None
        serve(events, early)
    os._exit(0)  # not through interpreter shutdown, which the watching thread could block
