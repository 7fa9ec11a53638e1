"""Running jobs in worker processes of this machine.

CPU steps share persistent workers, because importing torch costs seconds; a GPU step gets a fresh
process, because only a process that ends gives all GPU memory back.

Another process may wait for the next GPU step (:mod:`kit.engine.early`), a single one, on GPUs that
are in use still: it touches them only where the plan's memory leaves room beside what runs there,
and is ended when the step does not come, or comes elsewhere.

Every CPU step computes with the same number of threads (one, unless asked otherwise), however many
run at once: sums are split by threads, so results would depend on the machine's core count.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kit.engine.early import Early, ahead_folder
from kit.engine.events import STEP_ENDS, Event, event
from kit.engine.failures import died, failed
from kit.engine.job import Job
from kit.engine.process import oom_kills, rose, worker_environment
from kit.engine.registry import load_registry
from kit.results.plan import StepInstance

PLAN_MARGIN = 1.1
"""How much more than planned GPU memory steps may take: no two of them fail for sharing a GPU."""


class WorkerProcess:
    """A running ``kit.engine.worker`` and the job it is at.

    Args:
        environ: Its environment.
        gpus: Those that it may see.
        errors: File that takes what it prints outside of a step.
        early: What it does before it has a job.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        gpus: list[str],
        errors: Path,
        early: Early | None = None,
    ) -> None:
        errors.parent.mkdir(parents=True, exist_ok=True)
        self.gpus, self.early, self.ready = gpus, early, False
        self.job: Job | None = None
        self._kills_before: int | None = None
        self.errors = errors
        self._buffer = b""
        first = [] if early is None else [msgspec.json.encode(early).decode()]
        with errors.open("ab") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-c", "from kit.engine.worker import main; main()", *first],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(environ),
                process_group=0,  # out of reach of the terminal's Ctrl-C
            )
        assert self.child.stdout is not None
        self.out = self.child.stdout.fileno()
        os.set_blocking(self.out, False)

    def send(self, job: Job) -> None:
        """Give it a job."""
        assert self.child.stdin is not None
        self.job, self._kills_before = job, oom_kills()
        with contextlib.suppress(BrokenPipeError):  # it died; reading will tell
            self.child.stdin.write(msgspec.json.encode(job) + b"\n")
            self.child.stdin.flush()

    def receive(self) -> tuple[list[Event], bool]:
        """Events that have arrived, and whether the process has ended."""
        ended = False
        while True:
            try:
                chunk = os.read(self.out, 1 << 16)
            except BlockingIOError:
                break
            if not chunk:
                ended = True
                break
            self._buffer += chunk
        *lines, self._buffer = self._buffer.split(b"\n")
        events = [msgspec.json.decode(line) for line in lines]
        self.ready = self.ready or any(item["event"] == "worker-ready" for item in events)
        return events, ended

    def oom_killed(self) -> bool | None:
        """Whether the kernel killed for want of memory since the job began, as far as known."""
        return rose(self._kills_before)

    def last_lines(self, count: int = 5) -> str:
        """The end of what the job printed, else of what the process printed."""
        for path in ([Path(self.job.log)] if self.job is not None else []) + [self.errors]:
            with contextlib.suppress(OSError):
                lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                if lines:
                    return " | ".join(lines[-count:])[-1000:]
        return ""

    def signal(self, number: int) -> None:
        """Signal the process alone (SIGTERM) or its whole group (SIGKILL)."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if number == signal.SIGKILL:
                os.killpg(self.child.pid, number)
            else:
                self.child.send_signal(number)

    def close(self) -> int:
        """End it and everything it started; returns its status."""
        for pipe in (self.child.stdin, self.child.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self.signal(signal.SIGKILL)
        status = self.child.wait()
        if self.early is not None and self.early.job is not None:
            shutil.rmtree(ahead_folder(self.early.job, self.child.pid), ignore_errors=True)
        with contextlib.suppress(OSError):
            if self.errors.stat().st_size == 0:
                self.errors.unlink()
        return status


@dataclass
class Waiting:
    """A process without a job, and the instance that it will be for."""

    worker: WorkerProcess
    instance: StepInstance

    def serves(self, instance: StepInstance | None, work: Early | None) -> bool:
        """Whether it is what another instance, with this work, would have waiting."""
        early = self.worker.early
        if early is None or work is None or instance is None:
            return False
        if len(self.worker.gpus) != instance.resources.gpus:
            return False
        if early.job is not None and early.job.instance.key != instance.key:
            return False
        return (early.modules, early.folders) == (work.modules, work.folders)

    def holds(self, gpus: list[str]) -> bool:
        """Whether it may have taken memory of one of these GPUs."""
        early = self.worker.early
        return early is not None and early.job is not None and bool({*gpus} & {*self.worker.gpus})


class LocalExecutor:
    """Workers on this machine.

    Args:
        jobs: CPU steps at once.
        memory_gb: Memory that the running steps may plan with together.
        gpus: Names of the GPUs that may be used.
        gpu_memory_gb: How much memory each of them has, where that is known.
        logs: Folder for what workers print outside of steps.
        threads: Threads of a CPU step.
    """

    def __init__(
        self,
        *,
        jobs: int,
        memory_gb: float,
        gpus: list[str],
        logs: Path,
        gpu_memory_gb: Mapping[str, float] | None = None,
        threads: int = 1,
    ) -> None:
        self.jobs, self.memory_gb, self.threads, self.logs = jobs, memory_gb, threads, logs
        self._gpu_memory_gb = dict(gpu_memory_gb or {})
        self._free_gpus = list(gpus)
        self._idle: list[WorkerProcess] = []
        self._busy: dict[int, WorkerProcess] = {}
        self._selector = selectors.DefaultSelector()
        self._made = 0
        self._stopping = False
        self._repeated: set[str] = set()
        self._waiting: Waiting | None = None
        self._spoiled: set[tuple[tuple[str, ...], bool]] = set()
        """Modules with which a process ended before it had a job, and whether it used the GPU."""
        self._unsaid: list[Event] = []

    def _running(self) -> list[StepInstance]:
        return [worker.job.instance for worker in self._busy.values() if worker.job is not None]

    def fits(self, instance: StepInstance) -> bool:
        """Whether slots, memory and GPUs are free; a step too large for the memory runs alone."""
        running, needs = self._running(), instance.resources
        if needs.gpus > len(self._free_gpus):
            return False
        busy = sum(other.resources.world for other in running if not other.resources.gpus)
        if not needs.gpus and busy and busy + needs.world > self.jobs:
            return False
        planned = sum(other.resources.memory_gb for other in running)
        return not running or planned + needs.memory_gb <= self.memory_gb

    def start(self, job: Job) -> None:
        """Give a job to an idle worker, or to a new one."""
        count = job.instance.resources.gpus
        if count:
            worker = self._prepared(job) or self._worker(self._free_gpus[:count])
            if self._waiting is not None and self._waiting.holds(worker.gpus):
                self._unsaid.append(self._dismiss("another step needs its GPU"))
            self._free_gpus = [gpu for gpu in self._free_gpus if gpu not in worker.gpus]
        else:
            worker = self._living() or self._worker([])
        self._busy[worker.out] = worker
        self._selector.register(worker.out, selectors.EVENT_READ)
        worker.send(job)

    def expect(self, instance: StepInstance | None, work: Early | None) -> list[Event]:
        """Have a process ready for the GPU step that is next, within memory and GPUs.

        Args:
            instance: That step; its inputs are being made, or its GPU is in use. ``None`` if no
                step can be told, and then no process waits either.
            work: What its process can do now; ``None`` for nothing.

        Returns:
            What was done about it.
        """
        events: list[Event] = []
        if self._waiting is not None:
            if self._waiting.serves(instance, work) and not self._crowded():
                assert instance is not None
                self._waiting.instance = instance
                return events
            events.append(self._dismiss("another step is next, or memory is short"))
        if instance is None or work is None or (work.modules, False) in self._spoiled:
            return events
        gpus = [*self._free_gpus, *(gpu for worker in self._busy.values() for gpu in worker.gpus)]
        gpus, needs = gpus[: instance.resources.gpus], instance.resources
        if len(gpus) < needs.gpus or self._crowded(needs.memory_gb):
            return events
        if not self._room(gpus, needs.gpu_memory_gb) or (work.modules, True) in self._spoiled:
            work = msgspec.structs.replace(work, job=None)
        worker = self._worker(gpus, work)
        self._waiting = Waiting(worker, instance)
        self._selector.register(worker.out, selectors.EVENT_READ)
        reason = f"process {worker.child.pid} imports {', '.join(work.modules)}"
        if work.folders:
            reason += f", reads the weights in {', '.join(work.folders)}"
        if work.job is not None:
            reason += ", makes on the GPU what needs no other step"
        return [*events, event("step-early", instance.id, reason=f"{reason}, and waits")]

    def _room(self, gpus: list[str], more: float) -> bool:
        """Whether ``more`` GiB fit onto GPUs beside the steps there; no, if a need is unknown."""
        for gpu in gpus:
            sharing = [worker.job for worker in self._busy.values() if gpu in worker.gpus]
            needs = [job.instance.resources.gpu_memory_gb for job in sharing if job is not None]
            needs.append(more)
            most = self._gpu_memory_gb.get(gpu, 0.0)
            if min(needs) <= 0 or PLAN_MARGIN * sum(needs) > most:
                return False
        return True

    def _crowded(self, more: float = 0.0) -> bool:
        """Whether what runs and what waits, and ``more`` GiB, is above what may be planned with."""
        needs = [other.resources.memory_gb for other in self._running()]
        if self._waiting is not None:
            needs.append(self._waiting.instance.resources.memory_gb)
        return sum(needs) + more > self.memory_gb

    def _prepared(self, job: Job) -> WorkerProcess | None:
        """The waiting process, if it is for this job, lives, and its GPUs are free."""
        if self._waiting is None or self._waiting.instance.id != job.instance.id:
            return None
        worker = self._waiting.worker
        if worker.child.poll() is not None or not set(worker.gpus) <= set(self._free_gpus):
            return None
        self._waiting = None
        self._selector.unregister(worker.out)
        return worker

    def _dismiss(self, reason: str) -> Event:
        """End the waiting process."""
        waiting, self._waiting = self._waiting, None
        assert waiting is not None
        self._selector.unregister(waiting.worker.out)
        waiting.worker.close()
        return event("step-early-ended", waiting.instance.id, reason=reason)

    def _hear(self, waiting: Waiting) -> list[Event]:
        """Events of the waiting process: that it is ready, or has died."""
        arrived, ended = waiting.worker.receive()
        if ended:
            return [self._dismiss(self._spoil(waiting.worker))]
        named = {"event": "step-early-ready", "step": waiting.instance.id}
        return [item | named for item in arrived]

    def _spoil(self, worker: WorkerProcess) -> str:
        """Note that a process ended before it had done anything: no other is started so early."""
        assert worker.early is not None
        self._spoiled.add((worker.early.modules, worker.early.job is not None))
        return f"it ended with status {worker.child.wait()}; the step starts without it"

    def _living(self) -> WorkerProcess | None:
        """An idle worker; one that was killed meanwhile is no step's fault."""
        while self._idle:
            worker = self._idle.pop()
            if worker.child.poll() is None:
                return worker
            worker.close()
        return None

    def _worker(self, gpus: list[str], early: Early | None = None) -> WorkerProcess:
        self._made += 1
        environ = worker_environment(os.environ, threads=None if gpus else self.threads, gpus=gpus)
        log = self.logs / f"worker-{self._made}.log"
        return WorkerProcess(environ, gpus=gpus, errors=log, early=early)

    def poll(self, seconds: float) -> list[Event]:
        """Events of running jobs; a worker that died becomes its step's failure."""
        events, self._unsaid = self._unsaid, []
        for key, _ in self._selector.select(0 if events else seconds):
            if key.fd not in self._busy:
                assert self._waiting is not None
                events += self._hear(self._waiting)
                continue
            worker = self._busy[key.fd]
            arrived, ended = worker.receive()
            finished = False
            for item in arrived:
                if item["event"] != "worker-ready":
                    events.append(item)
                finished = finished or item["event"] in STEP_ENDS
            if finished:
                self._release(worker, keep=not ended and not worker.gpus)
            elif ended:
                events.append(self._death(worker))
        return events

    def _death(self, worker: WorkerProcess) -> Event:
        """The failure of a step whose process ended without a word, or that it is tried again."""
        job = worker.job
        assert job is not None
        id, last, oom_killed = job.instance.id, worker.last_lines(), worker.oom_killed()
        worker.signal(signal.SIGKILL)  # children it may have left in its group
        status = worker.child.wait()
        self._release(worker, keep=False)
        if worker.early is not None and not worker.ready and not self._stopping:
            self.start(job)
            return event("step-early-ended", id, reason=self._spoil(worker))
        error = died(job.instance, status, Path(job.log), last, oom_killed=oom_killed)
        if status == -signal.SIGKILL and not self._stopping and _repeatable(job.instance):
            if id not in self._repeated:
                self._repeated.add(id)
                self.start(job)
                return event("step-repeated", id, reason=f"{error.what}; it is tried once more")
            error.why += "; it was tried twice"
        return failed(job.instance, error.what, error.why, error.next_step)

    def _release(self, worker: WorkerProcess, *, keep: bool) -> None:
        self._selector.unregister(worker.out)
        del self._busy[worker.out]
        worker.job = None
        self._free_gpus.extend(worker.gpus)
        if keep:
            self._idle.append(worker)
        else:
            worker.close()

    def stop(self, *, kill: bool) -> None:
        """SIGTERM lets a step remove its half-written outputs; SIGKILL is for the impatient."""
        self._stopping = True
        if self._waiting is not None:
            self._dismiss("the run stops")
        for worker in self._busy.values():
            worker.signal(signal.SIGKILL if kill else signal.SIGTERM)

    def close(self) -> None:
        """End all workers."""
        if self._waiting is not None:
            self._dismiss("the run ends")
        for worker in [*self._busy.values(), *self._idle]:
            worker.close()
        self._busy.clear()
        self._idle.clear()
        self._selector.close()


def _repeatable(instance: StepInstance) -> bool:
    registry = load_registry()
    return instance.kind in registry.names() and registry.get(instance.kind).repeatable
