"""One execution of a plan: run directory, events, record, results."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kit.engine import hardware
from kit.engine.durable import explain, write_atomic
from kit.engine.events import Event, EventLog, event, utc_now
from kit.engine.job import PinPaths
from kit.engine.local import LocalExecutor
from kit.engine.plan import Plan
from kit.engine.progress import Mode, renderer
from kit.engine.record import Record, begin
from kit.engine.results_file import publish
from kit.engine.rundir import EVENTS, LOGS, PLAN, RECORD, new_run_dir
from kit.engine.runner import Outcome, Runner
from kit.engine.store import Level, Store
from kit.engine.tally import Tally
from kit.errors import Interrupted, KitError, Many, Preflight


class Pins(PinPaths, Protocol):
    """What a run needs of the pin store."""

    def check(self, id: str) -> None:
        """Raise a ``KitError`` unless the pin's files are present and right."""
        ...


@dataclass(frozen=True)
class Options:
    """How a plan is run; none of it may change a number.

    Attributes:
        jobs: CPU steps at once; by default one a core.
        threads: Threads of a CPU step (recorded: another count can change a last digit).
        check: How thoroughly finished steps are checked.
        keep_going: After a failure, go on with what does not depend on it.
        progress: Renderer.
        runs_dir: Where run directories are made.
    """

    jobs: int | None = None
    threads: int = 1
    check: Level = "small"
    keep_going: bool = False
    progress: Mode = "plain"
    runs_dir: Path = Path("runs")


def finished(plan: Plan, store: Store, level: Level = "sizes") -> set[str]:
    """Ids of the instances that the store has, together with everything they were made from."""
    have: set[str] = set()
    digests: dict[str, str] = {}
    for one in plan.instances:
        if not all(id in have for id in one.upstream()):
            continue
        entry = store.look(one.key, level).entry
        inputs = {name: [digests[id] for id in use.instances] for name, use in one.steps.items()}
        if entry is not None and entry.input_digests == inputs:
            have.add(one.id)
            digests[one.id] = entry.digest
    return have


def preflight(plan: Plan, store: Store, pins: Pins, gpus: int) -> None:
    """Refuse before anything starts what cannot work here.

    Raises:
        KitError: Too few GPUs, or inputs that are not there; all of them at once.
    """
    have = finished(plan, store)
    rest = [one for one in plan.instances if one.id not in have]
    most = max(rest, key=lambda one: one.resources.gpus, default=None)
    if most is not None and most.resources.gpus > gpus:
        raise Preflight(
            f"the step needs {most.resources.gpus} GPU(s), this machine has {gpus}",
            where=most.id,
            next_step="run it on a machine that has them, or try --profile mini, which needs none",
        )
    if plan.rehearsal:
        return  # stand-ins take the place of the inputs
    problems: list[KitError] = []
    for id in sorted({use.pin for one in rest for use in one.pins.values()}):
        try:
            pins.check(id)
        except KitError as error:
            error.next_step = error.next_step or f"kit fetch {plan.experiment}"
            problems.append(error)
    if problems:
        raise problems[0] if len(problems) == 1 else Many(problems)


class Session:
    """Runs a plan and leaves a run directory, whatever happens.

    Args:
        plan: What to run.
        home: The kit home.
        pins: Where pins are.
        options: How.
        argv: The command line, for the record.
    """

    def __init__(
        self, plan: Plan, *, home: Path, pins: Pins, options: Options, argv: Sequence[str]
    ) -> None:
        self.plan, self.pins, self.options = plan, pins, options
        self.store = Store(home)
        self.gpus = [gpu.index for gpu in hardware.gpus()]
        self.jobs = options.jobs or hardware.cpu_count()
        self.argv = list(argv)
        self.folder = Path()

    def run(self) -> Path:
        """Run; returns the run directory.

        Raises:
            StepFailed: A step failed (``Many`` when several did).
            Interrupted: A signal came.
            Preflight: This machine cannot.
        """
        preflight(self.plan, self.store, self.pins, len(self.gpus))
        plan, started, clock = self.plan, utc_now(), time.monotonic()
        self.folder = new_run_dir(
            self.options.runs_dir, plan.experiment, plan.profile, rehearsal=plan.rehearsal
        )
        try:
            self.store.clean()
            write_atomic(self.folder / PLAN, plan.to_json())
            record = begin(
                plan,
                argv=self.argv,
                environ=os.environ,
                started=started,
                options={"jobs": self.jobs, "threads": self.options.threads},
            )
            self._write(record)
            outcome = self._steps()
            record.add_outcome(plan, outcome)
            record.status = _status(outcome)
            if record.status == "finished":
                publish(plan, outcome, self.store, self.folder)
            record.ended, record.seconds = utc_now(), round(time.monotonic() - clock, 3)
            self._write(record)
        except OSError as error:
            raise explain(error, where=str(self.folder), path=self.store.home) from error
        if outcome.interrupted:
            left = sum(state not in ("run", "cached") for state in outcome.states.values())
            raise Interrupted(
                f"interrupted with {left} of {len(plan.instances)} steps left",
                where=str(self.folder),
                next_step="run the same command again: finished steps are kept",
            )
        if outcome.errors:
            raise outcome.errors[0] if len(outcome.errors) == 1 else Many(outcome.errors)
        return self.folder

    def _write(self, record: Record) -> None:
        write_atomic(self.folder / RECORD, record.to_json())

    def _steps(self) -> Outcome:
        plan = self.plan
        tally = Tally(plan, jobs=self.jobs, gpus=len(self.gpus))
        log, screen = EventLog(self.folder / EVENTS), renderer(self.options.progress, tally)

        def emit(item: Event) -> None:
            log(item)
            tally.update(item)
            screen.show(item)

        runner = Runner(
            plan,
            store=self.store,
            executor=lambda: LocalExecutor(
                jobs=self.jobs,
                memory_gb=hardware.memory_gb(),
                gpus=self.gpus,
                logs=self.folder / LOGS,
                threads=self.options.threads,
            ),
            pins=self.pins,
            logs=self.folder / LOGS,
            emit=emit,
            level=self.options.check,
            keep_going=self.options.keep_going,
            tick=screen.tick,
        )
        try:
            emit(
                event(
                    "run-started",
                    experiment=plan.experiment,
                    profile=plan.profile,
                    summary=f"{plan.experiment} {plan.profile}, {len(plan.instances)} steps, "
                    f"{self.jobs} at once",
                )
            )
            outcome = runner.run()
            counts = {
                state: sum(found == state for found in outcome.states.values())
                for state in sorted(set(outcome.states.values()))
            }
            emit(
                event(
                    f"run-{_status(outcome)}",
                    states=counts,
                    seconds=round(tally.elapsed(), 3),
                    summary=", ".join(f"{count} {state}" for state, count in counts.items()),
                )
            )
        finally:
            screen.close()
            log.close()
        return outcome


def _status(outcome: Outcome) -> str:
    if outcome.interrupted:
        return "interrupted"
    return "failed" if outcome.errors else "finished"
