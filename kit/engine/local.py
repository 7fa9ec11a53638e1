"""Running jobs in worker processes of this machine.

CPU steps share persistent workers, because importing torch costs seconds; a GPU step gets a fresh
process, because only a process that ends gives all GPU memory back.

Every CPU step computes with the same number of threads (one, unless asked otherwise), however many
run at once: sums are split by threads, so results would depend on the machine's core count.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from kit.engine.events import STEP_ENDS, Event, event
from kit.engine.failures import died, failed
from kit.engine.job import Job
from kit.engine.process import oom_kills, rose, worker_environment
from kit.engine.registry import load_registry
from kit.results.plan import StepInstance


class WorkerProcess:
    """A running ``kit.engine.worker`` and the job it is at."""

    def __init__(self, environ: Mapping[str, str], *, gpus: list[str], errors: Path) -> None:
        errors.parent.mkdir(parents=True, exist_ok=True)
        self.gpus = gpus
        self.job: Job | None = None
        self._kills_before: int | None = None
        self.errors = errors
        self._buffer = b""
        with errors.open("ab") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-c", "from kit.engine.worker import main; main()"],
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
        return [msgspec.json.decode(line) for line in lines], ended

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
        with contextlib.suppress(OSError):
            if self.errors.stat().st_size == 0:
                self.errors.unlink()
        return status


class LocalExecutor:
    """Workers on this machine.

    Args:
        jobs: CPU steps at once.
        memory_gb: Memory that the running steps may plan with together.
        gpus: Names of the GPUs that may be used.
        logs: Folder for what workers print outside of steps.
        threads: Threads of a CPU step.
    """

    def __init__(
        self, *, jobs: int, memory_gb: float, gpus: list[str], logs: Path, threads: int = 1
    ) -> None:
        self.jobs, self.memory_gb, self.threads, self.logs = jobs, memory_gb, threads, logs
        self._free_gpus = list(gpus)
        self._idle: list[WorkerProcess] = []
        self._busy: dict[int, WorkerProcess] = {}
        self._selector = selectors.DefaultSelector()
        self._made = 0
        self._stopping = False
        self._repeated: set[str] = set()

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
            taken, self._free_gpus = self._free_gpus[:count], self._free_gpus[count:]
            worker = self._worker(taken)
        else:
            worker = self._living() or self._worker([])
        self._busy[worker.out] = worker
        self._selector.register(worker.out, selectors.EVENT_READ)
        worker.send(job)

    def _living(self) -> WorkerProcess | None:
        """An idle worker; one that was killed meanwhile is no step's fault."""
        while self._idle:
            worker = self._idle.pop()
            if worker.child.poll() is None:
                return worker
            worker.close()
        return None

    def _worker(self, gpus: list[str]) -> WorkerProcess:
        self._made += 1
        environ = worker_environment(os.environ, threads=None if gpus else self.threads, gpus=gpus)
        return WorkerProcess(environ, gpus=gpus, errors=self.logs / f"worker-{self._made}.log")

    def poll(self, seconds: float) -> list[Event]:
        """Events of running jobs; a worker that died becomes its step's failure."""
        events: list[Event] = []
        for key, _ in self._selector.select(seconds):
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
        for worker in self._busy.values():
            worker.signal(signal.SIGKILL if kill else signal.SIGTERM)

    def close(self) -> None:
        """End all workers."""
        for worker in [*self._busy.values(), *self._idle]:
            worker.close()
        self._busy.clear()
        self._idle.clear()
        self._selector.close()


def _repeatable(instance: StepInstance) -> bool:
    registry = load_registry()
    return instance.kind in registry.names() and registry.get(instance.kind).repeatable
