"""One execution of a plan: run directory, events, record, results."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kit.durable import explain, free, is_full, make_home, sha256_file, write_atomic
from kit.engine import blind, hardware
from kit.engine.code import other_code
from kit.engine.events import Event, EventLog, encode, event, read_events, utc_after, utc_now
from kit.engine.keys import require_own_keys
from kit.engine.local import LocalExecutor
from kit.engine.preflight import finished, preflight
from kit.engine.progress import Mode, Progress, renderer
from kit.engine.record import add_outcome, begin, publish
from kit.engine.registry import load_registry
from kit.engine.runner import Executor, Outcome, Runner
from kit.engine.slurm.options import SlurmOptions
from kit.engine.store import Level, Store
from kit.errors import Interrupted, KitError, Preflight, StepFailed, raise_all
from kit.pins.store import PinStore
from kit.plural import plural
from kit.results.files import EVENTS, LOGS, PLAN, RECORD, SLURM, close
from kit.results.plan import Plan, StepInstance
from kit.results.record import Blind, Record

_NAMED = 3
"""Unfinished steps that a message names."""


@dataclass(frozen=True)
class Options:
    """How a plan is run; none of it may change a number.

    Attributes:
        jobs: CPU steps at once; by default one a core.
        threads: Threads of a CPU step (recorded: another count can change a last digit).
        check: How thoroughly finished steps are checked.
        keep_going: After a failure, go on with what does not depend on it.
        keep_intermediate: Keep intermediate outputs whose readers are done.
        fresh: Make finished steps again whose code has changed.
        progress: Renderer.
        runs_dir: Where run directories are made.
        blind: Expectations stay closed until the results are hashed.
        slurm: Submit steps to SLURM like this; ``None`` runs them on this machine.
    """

    jobs: int | None = None
    threads: int = 1
    check: Level = "small"
    keep_going: bool = False
    keep_intermediate: bool = False
    fresh: bool = False
    progress: Mode = "plain"
    runs_dir: Path = Path("runs")
    blind: bool = False
    slurm: SlurmOptions | None = None

    @property
    def at_once(self) -> int:
        """CPU steps at once; jobs at once on a cluster."""
        if self.slurm is not None:
            return self.slurm.max_jobs
        return self.jobs or hardware.cpu_count()

    def recorded(self) -> dict[str, Any]:
        """For the run record."""
        made: dict[str, Any] = {"jobs": self.at_once, "threads": self.threads}
        if self.slurm is not None:
            made |= {"executor": "slurm", "slurm": self.slurm.recorded()}
        return made


def new_run_dir(parent: Path, experiment: str, profile: str, *, rehearsal: bool = False) -> Path:
    """Make an empty run directory.

    Two runs in the same second get different names: ``mkdir`` decides, not a look beforehand.

    Raises:
        Preflight: The parent cannot be written to.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    base = f"{experiment}-{profile}-{'rehearsal-' if rehearsal else ''}{stamp}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_001):
            folder = parent / (base if number == 1 else f"{base}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        what = explain(error, where=str(parent), path=parent).what
        raise Preflight(
            what, where=str(parent), next_step="choose another folder: --runs-dir DIR"
        ) from None
    raise Preflight(f"there are already 10,000 runs called {base}", where=str(parent))


class Session:
    """Runs a plan and leaves a run directory, whatever happens.

    Args:
        plan: What to run.
        home: The kit home.
        pins: Where pins are.
        options: How.
        argv: The command line, for the record.
        begin_in: Called with the new run directory before anything is written into it.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        home: Path,
        pins: PinStore,
        options: Options,
        argv: Sequence[str],
        begin_in: Callable[[Path], None] = lambda folder: None,
    ) -> None:
        self.plan, self.pins, self.options = plan, pins, options
        self.store = Store(home)
        self.argv = list(argv)
        self.begin_in = begin_in
        self.folder = Path()

    def run(self) -> Path:
        """Run; returns the run directory.

        Raises:
            StepFailed: A step failed (``Many`` when several did).
            Interrupted: A signal came.
            Preflight: This machine cannot.
        """
        gpus = len(hardware.gpus()) if self.options.slurm is None else None
        make_home(self.store.home, next_step="set KIT_HOME to a folder you may write to")
        if self.options.blind:
            plan = self.plan
            blind.close(blind.closed_paths(plan.manifest or plan.experiment, plan.profile))
        preflight(self.plan, self.store, self.pins, gpus)
        plan, started, clock = self.plan, utc_now(), time.monotonic()
        self.folder = new_run_dir(
            self.options.runs_dir, plan.experiment, plan.profile, rehearsal=plan.rehearsal
        )
        try:
            self.store.clean()
            self.begin_in(self.folder)
            write_atomic(self.folder / PLAN, plan.to_json())
            record = begin(
                plan,
                argv=self.argv,
                environ=os.environ,
                started=started,
                options=self.options.recorded(),
            )
            self._write(record)
            outcome = run_steps(
                plan,
                store=self.store,
                pins=self.pins,
                options=self.options,
                logs=self.folder / LOGS,
                events=self.folder / EVENTS,
            )
            add_outcome(record, plan, outcome, self.folder)
            record.status = outcome.status
            if record.status == "finished":
                table = publish(plan, outcome, self.store, self.folder)
                record.results_sha256 = sha256_file(table)
                if self.options.blind:
                    states = Counter(outcome.states.values())
                    record.blind = Blind(from_store=states["cached"])
            else:
                self.store.clean()  # a step that was killed could not do it itself
            record.seconds = round(time.monotonic() - clock, 3)
            record.ended = utc_after(started, record.seconds)
            self._write(record)
            close(self.folder)
        except OSError as error:
            raise self._explained(error) from error
        finally:
            blind.open_again()
        complain(plan, outcome, str(self.folder))
        return self.folder

    def _explained(self, error: OSError) -> KitError:
        """What the disk of the run directory, or of the store, would not do."""
        runs = self.folder.parent
        if is_full(error) and free(runs) < free(self.store.home):
            full = explain(error, where=str(self.folder), path=runs)
            full.next_step = (
                f"free space on the file system of {runs}, or choose another, --runs-dir DIR; then "
                "run the same command again"
            )
            return full
        return explain(error, where=str(self.folder), path=self.store.home)

    def _write(self, record: Record) -> None:
        write_atomic(self.folder / RECORD, record.to_json())


def collect(
    plan: Plan,
    *,
    home: Path,
    pins: PinStore,
    options: Options,
    argv: Sequence[str],
    events: Path | None = None,
) -> Path:
    """Write the run directory of a plan that is finished in the store. No step is run.

    Args:
        plan: The plan that ``kit step`` was called with.
        home: The kit home with the store.
        pins: The pin store.
        options: How finished steps are checked, and where run directories are made.
        argv: The command line, for the record.
        events: Folder below which ``kit step --events`` left ``*.jsonl`` and logs; they are
            brought into the run directory.

    Raises:
        InvalidInput: The plan was edited.
        StepFailed: A step is not finished, or its outputs are damaged or outdated.
    """
    require_own_keys(plan, plan.results, load_registry())
    have = finished(plan, Store(home), options.check)
    missing = [instance.id for instance in plan.instances if instance.id not in have]
    if missing:
        raise StepFailed(
            f"{len(missing)} of {len(plan.instances)} steps are not finished: "
            + ", ".join(missing[:_NAMED])
            + ", ..." * (len(missing) > _NAMED),
            where=plan.experiment,
            why=f"the store {home} has no whole record of them",
            next_step=f"kit step PLAN {missing[0]!r}, or start the other engine again",
        )

    def begin_in(folder: Path) -> None:
        if events is not None:
            _bring(events, folder)

    session = Session(plan, home=home, pins=pins, options=options, argv=argv, begin_in=begin_in)
    return session.run()


def _bring(source: Path, folder: Path) -> None:
    """Events and logs of the single steps, before what collecting itself will say."""
    said = sorted(_step_events(source), key=lambda item: str(item.get("time", "")))
    (folder / EVENTS).write_bytes(b"".join(encode(item) for item in said))
    for log in sorted(source.rglob(f"{LOGS}/*.log")):
        (folder / LOGS).mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # an empty log is removed when a worker ends
            if not log.name.startswith("worker-"):
                shutil.copyfile(log, folder / LOGS / log.name)


def _step_events(source: Path) -> Iterator[Event]:
    """What was said about steps; that one ``kit step`` began and ended says nothing of the run."""
    for file in sorted(source.rglob("*.jsonl")):
        yield from (item for item in read_events(file) if "step" in item)


def run_steps(
    plan: Plan,
    *,
    store: Store,
    pins: PinStore,
    options: Options,
    logs: Path,
    events: Path | None,
    only: Collection[str] | None = None,
    digests: Mapping[str, str] | None = None,
) -> Outcome:
    """Run the steps of a plan, logging and showing events.

    Args:
        plan: The plan.
        store: Where finished steps are and go.
        pins: Where pins are.
        options: How to run.
        logs: Folder for what steps print.
        events: File that events are appended to.
        only: Run these instances alone.
        digests: Digests of the finished outputs that those read.
    """
    cards = {gpu.index: gpu.memory_gb for gpu in hardware.gpus()}
    on_cluster = options.slurm is not None
    progress = Progress(
        plan, jobs=options.at_once, gpus=options.at_once if on_cluster else len(cards)
    )
    with contextlib.ExitStack() as stack:
        log = EventLog(events) if events is not None else None
        if log is not None:
            stack.callback(log.close)
        screen = renderer(options.progress, progress)
        stack.callback(screen.close)

        def emit(item: Event) -> None:
            if log is not None:
                log(item)
            progress.update(item)
            screen.show(item)

        stale = other_code(plan, store, load_registry())
        runner = Runner(
            plan,
            store=store,
            executor=lambda: _executor(options, cards, logs),
            pins=pins,
            logs=logs,
            emit=emit,
            level=options.check,
            keep_going=options.keep_going,
            keep_intermediate=options.keep_intermediate,
            fresh=[instance.id for instance in stale] if options.fresh else (),
            tick=screen.tick,
            only=only,
            digests=digests,
        )
        chosen = len(plan.instances) if only is None else len(only)
        words = f"{plan.experiment} {plan.profile}, {plural(chosen, 'step')}"
        words += f", {options.at_once} at once"
        emit(event("run-started", experiment=plan.experiment, profile=plan.profile, summary=words))
        if stale:
            emit(event("note", text=_stale(stale, fresh=options.fresh)))
        outcome = runner.run()
        counts = Counter(outcome.states.values())
        emit(
            event(
                f"run-{outcome.status}",
                states=dict(sorted(counts.items())),
                seconds=round(progress.elapsed(), 3),
                summary=", ".join(f"{count} {state}" for state, count in sorted(counts.items())),
            )
        )
    return outcome


def _stale(steps: Sequence[StepInstance], *, fresh: bool) -> str:
    """What is said of finished steps whose code has changed, before anything runs."""
    kinds = ", ".join(dict.fromkeys(step.kind for step in steps))
    said = plural(len(steps), "finished step was", "finished steps were")
    said += f" made by other code than today's ({kinds}): "
    if fresh:
        return said + "they are made again"
    return said + "taken as they are; --fresh makes them again, and so does a raised version"


def _executor(options: Options, cards: dict[str, float], logs: Path) -> Executor:
    if options.slurm is not None:
        from kit.engine.slurm.executor import SlurmExecutor

        return SlurmExecutor(logs.parent / SLURM, options.slurm, threads=options.threads)
    return LocalExecutor(
        jobs=options.at_once,
        memory_gb=hardware.memory_gb(),
        gpus=list(cards),
        gpu_memory_gb=cards,
        logs=logs,
        threads=options.threads,
    )


def complain(plan: Plan, outcome: Outcome, where: str) -> None:
    """Raise what went wrong, if anything did.

    Raises:
        Interrupted: A signal came.
        StepFailed: A step failed (``Many`` when several did).
    """
    if outcome.interrupted:
        left = sum(state not in ("run", "cached") for state in outcome.states.values())
        raise Interrupted(
            f"interrupted with {left} of {len(outcome.states)} steps left",
            where=where,
            next_step="run the same command again: finished steps are kept",
        )
    raise_all(outcome.errors)
