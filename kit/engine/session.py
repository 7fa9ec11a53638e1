"""One execution of a plan: run directory, events, record, results."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from kit.durable import explain, free, is_full, make_home, write_atomic
from kit.engine import hardware
from kit.engine.batch import solve
from kit.engine.drive import Options, complain, drive
from kit.engine.environment import UNKNOWN_ARCH
from kit.engine.events import utc_after, utc_now
from kit.engine.job import PinPaths
from kit.engine.record import add_outcome, begin
from kit.engine.results_file import publish
from kit.engine.rundir import new_run_dir
from kit.engine.store import Level, Store
from kit.errors import KitError, Many, Preflight
from kit.pins.hashing import sha256_file
from kit.results.files import CLOSED, EVENTS, LOGS, PLAN, RECORD, SUMS
from kit.results.plan import Plan, StepInstance
from kit.results.record import Record


class Pins(PinPaths, Protocol):
    """What a run needs of the pin store."""

    def require(self, id: str) -> Path:
        """Where the pin is; raises a ``KitError`` unless it is there and right."""
        ...


def finished(plan: Plan, store: Store, level: Level = "sizes") -> set[str]:
    """Ids of the instances that the store has, together with everything they were made from."""
    have: set[str] = set()
    digests: dict[str, str] = {}
    for one in plan.instances:
        if not all(id in have for id in one.upstream()):
            continue
        entry = store.look(one.key, level).entry
        if entry is not None and entry.input_digests == one.input_digests(digests):
            have.add(one.id)
            digests[one.id] = entry.digest
    return have


def preflight(plan: Plan, store: Store, pins: Pins, gpus: int | None) -> None:
    """Refuse before anything starts what cannot work here.

    Args:
        plan: What is to be run.
        store: What is finished already.
        pins: The inputs.
        gpus: GPUs of this machine; ``None`` when steps run on a cluster.

    Raises:
        KitError: Too few GPUs, or inputs that are not there; all of them at once.
    """
    have = finished(plan, store)
    rest = [one for one in plan.instances if one.id not in have]
    most = max(rest, key=lambda one: one.resources.gpus, default=None)
    if gpus is None:
        _ready_for_slurm(most)
    elif most is not None and most.resources.gpus > gpus:
        raise Preflight(
            f"the step needs {most.resources.gpus} GPU(s), this machine has {gpus}",
            where=most.id,
            next_step=_other_split(most, gpus)
            + "run it on a machine that has them, or try --profile mini, which needs none",
        )
    if plan.rehearsal:
        return  # stand-ins take the place of the inputs
    problems: list[KitError] = []
    for id in sorted({use.pin for one in rest for use in one.pins.values()}):
        try:
            pins.require(id)
        except KitError as error:
            error.next_step = (error.next_step or "kit fetch EXPERIMENT").replace(
                "EXPERIMENT", f"{plan.name} --profile {plan.profile}"
            )
            problems.append(error)
    if problems:
        raise problems[0] if len(problems) == 1 else Many(problems)


def _other_split(step: StepInstance, gpus: int) -> str:
    """How the step's batch could be shared by the GPUs that there are."""
    batch, micro = step.params.get("global_batch"), step.params.get("micro_batch")
    if step.launch != "torchrun" or gpus < 1 or not (batch and micro) or batch % gpus:
        return ""
    split = solve(batch, world=gpus, largest_micro=micro)
    return f"--gpus {gpus} shares its batch otherwise, {split.words()}; "


def _ready_for_slurm(most: StepInstance | None) -> None:
    from kit.engine.slurm.cluster import require

    require()
    if most is not None and most.environment.get("gpu_arch") == UNKNOWN_ARCH:
        raise Preflight(
            "this machine has no GPU, so the plan does not know which GPUs the jobs will have",
            where=most.id,
            why="their architecture is part of a step's key",
            next_step="say it, for example KIT_GPU_ARCH=sm_90 kit run ...; the jobs check it",
        )


def close(folder: Path) -> None:
    """Write the hashes of what a run has left, whatever its end, as ``sha256sum`` does."""
    left = (name for name in CLOSED if (folder / name).is_file())
    lines = [f"{sha256_file(folder / name)}  {name}\n" for name in left]
    write_atomic(folder / SUMS, "".join(lines).encode())


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
        pins: Pins,
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
            outcome = drive(
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
            else:
                self.store.clean()  # a step that was killed could not do it itself
            record.seconds = round(time.monotonic() - clock, 3)
            record.ended = utc_after(started, record.seconds)
            self._write(record)
            close(self.folder)
        except OSError as error:
            raise self._explained(error) from error
        complain(plan, outcome, str(self.folder))
        return self.folder

    def _explained(self, error: OSError) -> KitError:
        """Steps tell of their own errors: what is left is the run directory's, or the store's."""
        runs = self.folder.parent
        told = explain(error, where=str(self.folder), path=self.store.home)
        if is_full(error) and free(runs) < free(self.store.home):
            told = explain(error, where=str(self.folder), path=runs)
            told.next_step = (
                f"free space on the file system of {runs}, or choose another, --runs-dir DIR; then "
                "run the same command again"
            )
        return told

    def _write(self, record: Record) -> None:
        write_atomic(self.folder / RECORD, record.to_json())
