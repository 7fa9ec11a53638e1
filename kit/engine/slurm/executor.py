"""The executor that hands steps to SLURM.

A started job is kept for a moment, so that instances of one step that become ready together are
submitted as one array. Jobs tell what they do in files; SLURM is asked now and then what became of
those that say nothing. Whatever happens to a job, its step ends exactly once.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kit.engine.early import Early
from kit.engine.events import STEP_ENDS, Event, EventTail, event
from kit.engine.failures import failed
from kit.engine.job import Job
from kit.engine.slurm.cluster import Cluster, Seen, SubmissionRefused, advice
from kit.engine.slurm.options import SlurmOptions, request, shared_by
from kit.engine.slurm.task import StepTask
from kit.engine.store import RECORD, Store
from kit.plural import plural
from kit.results.plan import StepInstance

MOST_IN_ARRAY = 1000
"""SLURM's own default limit (MaxArraySize 1001)."""
_SLOWEST_ASK, _FASTEST_ASK = 15.0, 2.0
_READS_A_SECOND = 64
_TRIES = 6
"""Submissions of a job before a busy controller, or repeated preemption, counts as a failure."""


@dataclass
class Submitted:
    """A job that was started and has not ended."""

    job: Job
    tail: EventTail
    """Of the file that the job appends events to."""
    id: str = ""
    tries: int = 0
    stopped: bool = False
    """It was stopped, and nobody here asked for that: SLURM may run it again."""
    gone_since: float | None = None
    """When SLURM first said that it has ended."""
    held: Event | None = None
    """Its end, while its outputs are not visible on this machine yet."""
    held_since: float = 0.0


class SlurmExecutor:
    """Runs each job as a SLURM job.

    Args:
        folder: For batch scripts, the jobs' event files and what SLURM prints.
        options: How to submit and follow.
        threads: Threads of a CPU step.
        cluster: Instead of the real one, for tests.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        options: SlurmOptions,
        *,
        threads: int = 1,
        cluster: Cluster | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.options, self.threads = folder.absolute(), options, threads
        self.cluster = cluster if cluster is not None else Cluster(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self._buffer: list[Submitted] = []
        self._buffered_at = self._retry_at = 0.0
        self._submitted: dict[str, Submitted] = {}  # instance id -> job
        self._finished: list[str] = []
        self._made = 0
        self._stopping = False
        self._looked = self._asked = self._last_submission = clock()

    def fits(self, instance: StepInstance) -> bool:
        """Whether another job may be submitted; whether it can run now is SLURM's affair."""
        return len(self._buffer) + len(self._submitted) < self.options.max_jobs

    def start(self, job: Job) -> None:
        """Take a job; it is submitted at the next poll but a moment."""
        if not self._buffer:
            self._buffered_at = self._clock()
        self._made += 1
        events = self.folder / f"job-{self._made}.events.jsonl"
        self._buffer.append(Submitted(job, EventTail(events)))

    def expect(self, instance: StepInstance | None, work: Early | None) -> list[Event]:
        """A job has its GPUs to itself: nothing waits beside another one."""
        return []

    def poll(self, seconds: float) -> list[Event]:
        """What jobs said, and what SLURM says of those that are silent."""
        now, events = self._clock(), list[Event]()
        ripe = now - self._buffered_at >= self.options.gather and now >= self._retry_at
        if self._buffer and ripe and not self._stopping:
            events += self._submit()
        if now - self._looked >= max(self.options.refresh, len(self._submitted) / _READS_A_SECOND):
            self._looked = now
            for submitted in list(self._submitted.values()):
                events += self._read(submitted)
        if self._submitted and now - self._asked >= self._ask_every(now):
            self._asked = now
            events += self._judge()
        if not events:
            time.sleep(min(seconds, self.options.refresh))
        return events

    def _ask_every(self, now: float) -> float:
        """Often while something was just submitted or is being stopped, seldom later."""
        if self._stopping:
            return min(1.0, self.options.refresh)
        since = now - self._last_submission
        return min(_SLOWEST_ASK, max(_FASTEST_ASK, since / 2)) * min(1.0, self.options.refresh)

    # Submitting.

    def _submit(self) -> list[Event]:
        groups: dict[tuple[str, str], list[Submitted]] = defaultdict(list)
        for submitted in self._buffer:
            needs = request(submitted.job.instance, self.options, threads=self.threads)
            groups[submitted.job.instance.step, shared_by(needs)].append(submitted)
        self._buffer = []
        events: list[Event] = []
        for jobs in groups.values():
            for start in range(0, len(jobs), MOST_IN_ARRAY):
                events += self._submit_array(jobs[start : start + MOST_IN_ARRAY])
        return events

    def _submit_array(self, jobs: list[Submitted]) -> list[Event]:
        needs = request(jobs[0].job.instance, self.options, threads=self.threads)
        tasks = [
            StepTask(msgspec.json.encode(submitted.job), str(submitted.tail.path), self.threads)
            for submitted in jobs
        ]
        for submitted in jobs:
            submitted.tries += 1
        self._last_submission = now = self._clock()
        try:
            ids = self.cluster.submit(tasks, needs)
        except SubmissionRefused as error:
            if error.transient and jobs[0].tries < _TRIES:
                self._buffer += jobs
                self._retry_at = now + 5.0 * 2 ** jobs[0].tries * min(1.0, self.options.refresh)
                words = f"SLURM does not take it now ({error}); trying again"
                return [event("note", jobs[0].job.instance.id, text=words)]
            return [_refused(submitted.job.instance, str(error)) for submitted in jobs]
        events = []
        for submitted, id in zip(jobs, ids, strict=True):
            submitted.id, submitted.gone_since, submitted.stopped = id, None, False
            self._submitted[submitted.job.instance.id] = submitted
            asked = f"time {needs['time']} min, {needs.get('mem', 'memory as given')}"
            gpus = f", {plural(needs['gpus_per_node'], 'GPU')}" if "gpus_per_node" in needs else ""
            events.append(
                event(
                    "step-submitted",
                    submitted.job.instance.id,
                    job=id,
                    reason=f"SLURM job {id} ({asked}{gpus})",
                )
            )
        return events

    # Following.

    def _read(self, submitted: Submitted) -> list[Event]:
        """New whole lines of a job's event file."""
        if submitted.held is not None:
            return self._release(submitted)
        events: list[Event] = []
        for item in submitted.tail.read():
            if item["event"] not in STEP_ENDS:
                submitted.stopped = False
                events.append(item)
            elif item["event"] == "step-stopped" and not self._stopping:
                submitted.stopped = True
            else:
                submitted.held, submitted.held_since = item, self._clock()
                return events + self._release(submitted)
        return events

    def _release(self, submitted: Submitted) -> list[Event]:
        """The end of a job, once this machine sees what it left in the store."""
        assert submitted.held is not None
        if submitted.held["event"] in ("step-done", "step-cached") and not self._visible(submitted):
            return []
        del self._submitted[submitted.job.instance.id]
        self._finished.append(submitted.id)
        return [submitted.held]

    def _visible(self, submitted: Submitted) -> bool:
        if self._clock() - submitted.held_since > self.options.grace:
            return True  # it will not come; the runner says so
        target = Store(Path(submitted.job.home)).path(submitted.job.instance.key)
        for folder in (target.parent.parent, target.parent, target):
            try:
                list(folder.iterdir())  # reading a directory is what makes NFS look it up anew
            except OSError:
                return False
        return (target / RECORD).exists()

    def _judge(self) -> list[Event]:
        """Ask SLURM what became of the jobs."""
        seen = self.cluster.ask(
            [submitted.id for submitted in self._submitted.values() if submitted.id]
        )
        if seen is None:
            return []
        now, events = self._clock(), list[Event]()
        for submitted in list(self._submitted.values()):
            state = seen.get(submitted.id, Seen())
            if submitted.held is not None:
                continue
            if state.live:
                submitted.gone_since = None
                if submitted.stopped and state.state in ("PENDING", "REQUEUED"):
                    submitted.stopped = False
                    events.append(_requeued(submitted, state))
                continue
            events += self._read(submitted)
            if submitted.held is not None or submitted.job.instance.id not in self._submitted:
                continue
            if submitted.gone_since is None:
                submitted.gone_since = now
            patience = self.options.grace / (4 if submitted.stopped else 1)
            if self._stopping or now - submitted.gone_since >= patience:
                events += self._gone(submitted)
        return events

    def _gone(self, submitted: Submitted) -> list[Event]:
        """A job has ended and does not tell how."""
        instance = submitted.job.instance
        del self._submitted[instance.id]
        if self._stopping:
            return [event("step-stopped", instance.id)]
        seen = self.cluster.explain(submitted.id)
        if seen.live:  # requeued between the two questions
            self._submitted[instance.id] = submitted
            submitted.gone_since = None
            return []
        preempted = seen.state == "PREEMPTED" or (submitted.stopped and seen.state == "COMPLETED")
        if preempted and submitted.tries < _TRIES:
            # A cluster that cancels what it preempts, or counts a job that obeyed as completed.
            self._buffered_at = self._clock()
            self._buffer.append(submitted)
            return [_requeued(submitted, seen)]
        why, next_step = advice(seen)
        message = f"SLURM job {submitted.id} ended before its step did: {seen.words()}"
        why += self._last_words(submitted)
        return [failed(instance, message, why, f"{next_step}; logs: {self.folder}")]

    def _last_words(self, submitted: Submitted) -> str:
        """The end of what SLURM kept of the job's own output."""
        for path in sorted(self.folder.glob(f"{submitted.id}_*_log.err")):
            lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            if lines:
                return "; its last output: " + " | ".join(lines[-3:])[-600:]
        return ""

    # Ending.

    def stop(self, *, kill: bool) -> None:
        """Cancel everything: what waits disappears, what runs is asked to stop, or killed."""
        self._stopping = True
        for submitted in self._buffer:
            submitted.held = event("step-stopped", submitted.job.instance.id)
            self._submitted[submitted.job.instance.id] = submitted
        self._buffer = []
        self._cancel(kill=kill)

    def _cancel(self, *, kill: bool) -> None:
        ids = [submitted.id for submitted in self._submitted.values() if submitted.id]
        if ids:
            self.cluster.cancel(ids, kill=kill)

    def close(self) -> None:
        """Cancel what is left, and keep of the jobs' files what somebody may want to read."""
        self._cancel(kill=True)
        self._submitted.clear()
        self._buffer.clear()
        self.cluster.tidy([id for id in self._finished if id])
        for path in self.folder.glob("job-*.events.jsonl"):
            path.unlink()  # all of it is in the run's own log


def _refused(instance: StepInstance, text: str) -> Event:
    return failed(
        instance,
        f"SLURM does not take the job: {text}",
        "sbatch refused what the plan and --slurm ask for",
        "correct it by --slurm KEY=VALUE (partition, account, qos, time, mem, ...)",
    )


def _requeued(submitted: Submitted, seen: Seen) -> Event:
    return event(
        "step-requeued",
        submitted.job.instance.id,
        job=submitted.id,
        reason=f"SLURM stopped job {submitted.id} and runs it again ({seen.words()}); it goes on "
        "from its checkpoints",
    )
