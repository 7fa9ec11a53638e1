"""Running steps, here or on a cluster, with events logged and shown."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.engine import hardware
from kit.engine.events import Event, EventLog, event
from kit.engine.executor import Executor
from kit.engine.job import PinPaths
from kit.engine.local import LocalExecutor
from kit.engine.progress import Mode, renderer
from kit.engine.runner import Outcome, Runner
from kit.engine.slurm.options import SlurmOptions
from kit.engine.store import Level, Store
from kit.engine.tally import Tally
from kit.errors import Interrupted, Many
from kit.results.files import SLURM
from kit.results.plan import Plan


@dataclass(frozen=True)
class Options:
    """How a plan is run; none of it may change a number.

    Attributes:
        jobs: CPU steps at once; by default one a core.
        threads: Threads of a CPU step (recorded: another count can change a last digit).
        check: How thoroughly finished steps are checked.
        keep_going: After a failure, go on with what does not depend on it.
        keep_intermediate: Keep intermediate outputs whose readers are done.
        progress: Renderer.
        runs_dir: Where run directories are made.
        slurm: Submit steps to SLURM like this; ``None`` runs them on this machine.
    """

    jobs: int | None = None
    threads: int = 1
    check: Level = "small"
    keep_going: bool = False
    keep_intermediate: bool = False
    progress: Mode = "plain"
    runs_dir: Path = Path("runs")
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


def drive(
    plan: Plan,
    *,
    store: Store,
    pins: PinPaths,
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
    gpus = [gpu.index for gpu in hardware.gpus()]
    on_cluster = options.slurm is not None
    tally = Tally(plan, jobs=options.at_once, gpus=options.at_once if on_cluster else len(gpus))
    with contextlib.ExitStack() as stack:
        log = EventLog(events) if events is not None else None
        if log is not None:
            stack.callback(log.close)
        screen = renderer(options.progress, tally)
        stack.callback(screen.close)

        def emit(item: Event) -> None:
            if log is not None:
                log(item)
            tally.update(item)
            screen.show(item)

        runner = Runner(
            plan,
            store=store,
            executor=lambda: _executor(options, gpus, logs),
            pins=pins,
            logs=logs,
            emit=emit,
            level=options.check,
            keep_going=options.keep_going,
            keep_intermediate=options.keep_intermediate,
            tick=screen.tick,
            only=only,
            digests=digests,
        )
        chosen = len(plan.instances) if only is None else len(only)
        words = f"{plan.experiment} {plan.profile}, {chosen} steps, {options.at_once} at once"
        emit(event("run-started", experiment=plan.experiment, profile=plan.profile, summary=words))
        outcome = runner.run()
        counts = Counter(outcome.states.values())
        emit(
            event(
                f"run-{outcome.status}",
                states=dict(sorted(counts.items())),
                seconds=round(tally.elapsed(), 3),
                summary=", ".join(f"{count} {state}" for state, count in sorted(counts.items())),
            )
        )
    return outcome


def _executor(options: Options, gpus: list[str], logs: Path) -> Executor:
    if options.slurm is not None:
        from kit.engine.slurm.executor import SlurmExecutor

        return SlurmExecutor(logs.parent / SLURM, options.slurm, threads=options.threads)
    return LocalExecutor(
        jobs=options.at_once,
        memory_gb=hardware.memory_gb(),
        gpus=gpus,
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
    if outcome.errors:
        raise outcome.errors[0] if len(outcome.errors) == 1 else Many(outcome.errors)
