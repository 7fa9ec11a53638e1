"""Which step runs next.

An instance is looked up in the store when everything it reads is finished, not before: if an
upstream step had to be redone and came out differently, what was made from the old outputs is
redone as well; if it came out the same, it stays.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol

import msgspec

from kit.engine.early import Early, early_work
from kit.engine.events import STEP_ENDS, Emit, Event, event
from kit.engine.failures import Failure, failed, step_failed
from kit.engine.job import Job, log_path, make_job, stop_seconds
from kit.engine.store import Level, Store, StoredStep
from kit.errors import KitError
from kit.pins.store import PinStore
from kit.results.plan import Plan, StepInstance

State = Literal["waiting", "cached", "run", "failed", "stopped", "blocked"]
_POLL_SECONDS = 0.25
STOP_MARGIN = 5.0
"""Seconds between the end of the time that a stopped step has for saving, and its death."""
_SCAN = 32
"""Ready instances looked at for one that fits; more would make large grids quadratic."""


class Executor(Protocol):
    """Runs jobs.

    Every started job ends with exactly one event of :data:`kit.engine.events.STEP_ENDS`; a
    ``step-failed`` carries a ``failure``.
    """

    def fits(self, instance: StepInstance) -> bool:
        """Whether it could be started now."""
        ...

    def start(self, job: Job) -> None:
        """Start a job that fits."""
        ...

    def expect(self, instance: StepInstance | None, work: Early | None) -> list[Event]:
        """Make ready for the GPU step that is next, if any; returns what was done about it."""
        ...

    def poll(self, seconds: float) -> list[Event]:
        """Wait at most so long for events of running jobs."""
        ...

    def stop(self, *, kill: bool) -> None:
        """Ask everything running to end, or end it."""
        ...

    def close(self) -> None:
        """Give back what is held; nothing runs any more."""
        ...


@dataclass
class Outcome:
    """How a plan ended.

    Attributes:
        states: Instance id -> what became of it.
        entries: Instance id -> its stored step, for cached and run ones.
        errors: One for each failed instance.
        interrupted: Whether a signal ended it.
        jobs: Instance id -> id of its last job, on a cluster.
    """

    states: dict[str, State] = field(default_factory=dict)
    entries: dict[str, StoredStep] = field(default_factory=dict)
    errors: list[KitError] = field(default_factory=list)
    interrupted: bool = False
    jobs: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """``finished``, ``failed`` or ``interrupted``."""
        if self.interrupted:
            return "interrupted"
        return "failed" if self.errors else "finished"


class Runner:
    """Runs a plan to its end on an executor.

    Args:
        plan: What to run.
        store: Where finished steps are and go.
        executor: How steps are run.
        pins: Where pins are.
        logs: Folder for what steps print.
        emit: Takes the events.
        level: How thoroughly finished steps are checked.
        keep_going: After a failure, go on with what does not depend on it.
        keep_intermediate: Keep outputs of intermediate steps whose readers are done.
        fresh: Ids of finished steps that are made again, because other code made them.
        tick: Called a few times a second, for a live display.
        only: Run these instances alone; everything they read is finished already.
        digests: Digests of the finished outputs that those read.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        store: Store,
        executor: Callable[[], Executor],
        pins: PinStore,
        logs: Path,
        emit: Emit,
        level: Level = "small",
        keep_going: bool = False,
        keep_intermediate: bool = False,
        fresh: Collection[str] = (),
        tick: Callable[[], None] = lambda: None,
        only: Collection[str] | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        self.plan, self.store, self.pins, self.logs = plan, store, pins, logs
        self.emit, self.level, self.keep_going, self.tick = emit, level, keep_going, tick
        self._make_executor, self._fresh = executor, frozenset(fresh)
        self._executor: Executor | None = None
        self._signals = 0
        self._chosen = [
            instance for instance in plan.instances if only is None or instance.id in only
        ]
        self._on_gpu = [instance for instance in self._chosen if instance.resources.gpus]
        self._early: dict[str, Early | None] = {}
        self._looked: dict[str, bool] = {}
        self._digests = dict(digests or {})
        self._missing: dict[str, int] = {}
        self._readers: dict[str, list[str]] = {instance.id: [] for instance in self._chosen}
        for instance in self._chosen:
            sources = {id for id in instance.upstream() if id in self._readers}
            self._missing[instance.id] = len(sources)
            for source in sources:
                self._readers[source].append(instance.id)
        self._ready: deque[StepInstance] = deque()
        self._running: dict[str, list[StepInstance]] = {}  # key -> [running, same key waiting...]
        # Key -> instances of this plan that have still to read it.
        self._unread: Counter[str] = Counter()
        for instance in plan.instances:
            self._unread.update({plan.by_id[id].key for id in instance.upstream()})
        self._intermediate: dict[str, list[StepInstance]] = {}
        for instance in plan.instances if not keep_intermediate else ():
            if instance.intermediate:
                self._intermediate.setdefault(instance.key, []).append(instance)
        self._redone: dict[str, list[StepInstance]] = {}  # dropped, made again -> who waits for it
        self._lost: dict[str, int] = {}
        self._again: dict[str, list[str]] = {}  # instance -> keys that it reads once more
        self.outcome = Outcome(states={instance.id: "waiting" for instance in self._chosen})

    def run(self) -> Outcome:
        """Run until everything is finished, something failed, or a signal came."""
        try:
            with self._listening():
                self._settle(
                    [instance for instance in self._chosen if not self._missing[instance.id]]
                )
                while not self._signals:
                    if self.keep_going or not self.outcome.errors:
                        self._start()
                        self._expect()
                    if not self._running:
                        break
                    self._handle(self._live().poll(_POLL_SECONDS))
                    self.tick()
                if self._signals:
                    self._interrupt()
        finally:
            if self._executor is not None:
                self._executor.close()
        return self.outcome

    def _live(self) -> Executor:
        """The executor, made when the first job needs it: a cached run starts no worker."""
        if self._executor is None:
            self._executor = self._make_executor()
        return self._executor

    def _settle(self, fresh: list[StepInstance]) -> None:
        """Look up instances whose inputs are finished; queue those the store does not have."""
        todo = deque(fresh)
        while todo and not self._signals:
            instance = todo.popleft()
            same = self._running.get(instance.key)
            if same is not None:
                same.append(instance)
                continue
            if instance.id in self._redone:  # its record is there, its files are wanted
                self._enqueue(instance)
                continue
            look = self.store.look(instance.key, self.level)
            if look.entry is not None and instance.id in self._fresh:
                self.emit(event("step-outdated", instance.id, reason="its code has changed"))
                self._enqueue(instance)
                continue
            if look.entry is not None and look.entry.input_digests == instance.input_digests(
                self._digests
            ):
                self.emit(
                    event("step-cached", instance.id, key=instance.key, seconds=look.entry.seconds)
                )
                todo.extend(self._finish(instance, look.entry, "cached"))
                continue
            if look.entry is not None:
                self.emit(event("step-outdated", instance.id, reason="its inputs were redone"))
            elif look.outdated:
                self.emit(event("step-outdated", instance.id, reason=look.outdated))
            self._enqueue(instance)

    def _enqueue(self, instance: StepInstance) -> None:
        """Queue an instance to be run; what it reads and was dropped is made again first."""
        read = (self.plan.by_id[id] for id in dict.fromkeys(instance.upstream()))
        dropped = [other for other in read if self._is_dropped(other.id)]
        if not dropped:
            self._ready.append(instance)
            return
        self._lost[instance.id] = len(dropped)
        for other in dropped:
            if other.id not in self._redone:
                self._redone[other.id] = []
                self.emit(event("step-outdated", other.id, reason="its outputs were dropped"))
                self._enqueue(other)
            self._redone[other.id].append(instance)
            self._unread[other.key] += 1
            self._again.setdefault(instance.id, []).append(other.key)

    def _is_dropped(self, id: str) -> bool:
        entry = self.outcome.entries.get(id)
        return entry is not None and entry.dropped

    def _finish(
        self, instance: StepInstance, entry: StoredStep, state: State
    ) -> Iterator[StepInstance]:
        """Note a finished instance; yields the instances that have nothing left to wait for."""
        self._note(instance, entry, state)
        again = self._redone.pop(instance.id, None)
        for waiting in again or ():
            self._lost[waiting.id] -= 1
            if not self._lost[waiting.id]:
                yield waiting
        self._drop_read(instance, again=again is not None)
        if again is not None:
            return
        for reader in self._readers[instance.id]:
            self._missing[reader] -= 1
            if not self._missing[reader]:
                yield self.plan.by_id[reader]

    def _drop_read(self, instance: StepInstance, *, again: bool) -> None:
        """Drop what this instance was the last to read, if it is intermediate."""
        self._unread.subtract(self._again.pop(instance.id, ()))
        for key in {self.plan.by_id[id].key for id in instance.upstream()}:
            self._unread[key] -= not again
            made = self._intermediate.get(key, [])
            if not made or self._unread[key] or not self.store.drop(key):
                continue
            self.emit(event("step-dropped", made[0].id, key=key))
            entry = self.store.look(key, "sizes").entry
            for other in made:
                if entry is not None and other.id in self.outcome.entries:
                    self.outcome.entries[other.id] = entry

    def _note(self, instance: StepInstance, entry: StoredStep, state: State) -> None:
        self.outcome.states[instance.id] = state
        self.outcome.entries[instance.id] = entry
        self._digests[instance.id] = entry.digest

    def _start(self) -> None:
        """Start what is ready and fits, in plan order."""
        skipped: list[StepInstance] = []
        while self._ready and len(skipped) < _SCAN:
            instance = self._ready.popleft()
            same = self._running.get(instance.key)
            if same is not None:
                same.append(instance)
            elif self._live().fits(instance):
                self._running[instance.key] = [instance]
                self._live().start(self._job(instance))
            else:
                skipped.append(instance)
        self._ready.extendleft(reversed(skipped))

    def _job(self, instance: StepInstance, *, early: bool = False) -> Job:
        """The job of an instance; ``early``, without the steps that it reads."""
        alone = msgspec.structs.replace(instance, steps={}) if early else instance
        return make_job(
            self.plan,
            alone,
            home=self.store.home,
            logs=self.logs,
            pins=self.pins,
            digests=self._digests,
            check=self.level,
            fresh=instance.id in self._fresh,
        )

    def _expect(self) -> None:
        """Say which GPU step is next, so that its process can be started early."""
        if self._executor is None or not self._on_gpu:
            return
        instance = self._next_on_gpu()
        if instance is not None and instance.id not in self._early:
            self._early[instance.id] = early_work(
                instance,
                self.pins,
                rehearsal=self.plan.rehearsal,
                job=partial(self._job, instance, early=True),
            )
        work = None if instance is None else self._early[instance.id]
        for item in self._executor.expect(instance, work):
            self.emit(item)

    def _next_on_gpu(self) -> StepInstance | None:
        """The first GPU step that is ready, else the first whose inputs are all being made."""
        for instance in islice(self._ready, _SCAN):
            if instance.resources.gpus and instance.key not in self._running:
                return instance
        running = [same[0].id for same in self._running.values()]
        readers = {reader for id in running for reader in self._readers[id]}
        for instance in self._on_gpu if readers else ():
            if instance.id not in readers or self.outcome.states[instance.id] != "waiting":
                continue
            left = {id for id in instance.upstream() if id not in self._digests}
            if left <= set(running) and self._absent(instance):
                return instance
        return None

    def _absent(self, instance: StepInstance) -> bool:
        """Whether the store has nothing under its key: what is there will probably be taken."""
        if instance.key not in self._looked:
            self._looked[instance.key] = self.store.look(instance.key, "sizes").entry is None
        return self._looked[instance.key]

    def _handle(self, events: list[Event]) -> None:
        for item in events:
            if item["event"] not in STEP_ENDS:
                self.emit(item)
                if item["event"] == "step-submitted":
                    self.outcome.jobs[item["step"]] = item["job"]
                continue
            instance = self.plan.by_id[item["step"]]
            _, *same = self._running.pop(instance.key)
            if item["event"] in ("step-done", "step-cached"):
                self.emit(item)
                entry = self.store.look(instance.key, "sizes").entry
                if entry is not None:
                    state: State = "run" if item["event"] == "step-done" else "cached"
                    self._settle([*self._finish(instance, entry, state), *same])
                    continue
                item = failed(
                    instance,
                    "its outputs are not in the store although it finished",
                    "something else changes the store while the run uses it",
                )
            if item["event"] == "step-stopped":
                self.emit(item)
                self.outcome.states[instance.id] = "stopped"
                continue
            self._fail(instance, item, same)

    def _fail(self, instance: StepInstance, item: Event, same: list[StepInstance]) -> None:
        failure = msgspec.convert(item["failure"], Failure)
        error = step_failed(failure, instance, log_path(self.logs, instance.id))
        error.trace = failure.traceback
        fields: dict[str, Any] = {
            name: value for name, value in item.items() if name not in ("time", "event", "step")
        }
        self.emit(event("step-failed", instance.id, message=error.what, **fields))
        self.outcome.states[instance.id] = "failed"
        self.outcome.errors.append(error)
        blocked = [other.id for other in same] + self._readers[instance.id]
        while blocked:
            id = blocked.pop()
            if self.outcome.states[id] == "waiting":
                self.outcome.states[id] = "blocked"
                blocked.extend(self._readers[id])

    def _interrupt(self) -> None:
        """Let running steps save and clean up; a second signal, or too long a wait, kills them."""
        self.outcome.interrupted = True
        if self._executor is None:
            return
        self._executor.stop(kill=False)
        running = [same[0] for same in self._running.values()]
        patience = max((stop_seconds(other) for other in running), default=0.0) + STOP_MARGIN
        for other in running:
            words = f"it has {stop_seconds(other):g} s to save its state; once more ends it at once"
            self.emit(event("step-stopping", other.id, reason=words))
        asked, deadline = self._signals, time.monotonic() + patience
        while self._running:
            if self._signals > asked or time.monotonic() > deadline:
                self._executor.stop(kill=True)
                for same in self._running.values():
                    self.outcome.states[same[0].id] = "stopped"
                return
            for item in self._executor.poll(_POLL_SECONDS):
                self.emit(item)
                if item["event"] not in STEP_ENDS:
                    continue
                instance = self.plan.by_id[item["step"]]
                del self._running[instance.key]
                self.outcome.states[instance.id] = "stopped"
                entry = self.store.look(instance.key, "sizes").entry
                if entry is not None and item["event"] in ("step-done", "step-cached"):
                    self._note(instance, entry, "run")

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Count SIGINT and SIGTERM instead of dying of them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def hear(number: int, frame: FrameType | None) -> None:
            self._signals += 1

        before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
