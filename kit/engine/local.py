"""Running jobs in worker processes of this machine.

CPU steps share persistent workers, because importing torch costs seconds; a GPU step gets a fresh
process, because only a process that ends gives all GPU memory back.

Every CPU step computes with the same number of threads (one, unless asked otherwise), however many
run at once: sums are split by threads, so results would depend on the machine's core count.
"""

from __future__ import annotations

import os
import selectors
import signal
from pathlib import Path

import msgspec

from kit.engine import oom_kills
from kit.engine.events import STEP_ENDS, Event, event
from kit.engine.failures import Failure, died
from kit.engine.job import Job
from kit.engine.process import WorkerProcess, worker_environment
from kit.results.plan import StepInstance


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

    def _running(self) -> list[StepInstance]:
        return [worker.job.instance for worker in self._busy.values() if worker.job is not None]

    def fits(self, instance: StepInstance) -> bool:
        """Whether slots, memory and GPUs are free; a step too large for the memory runs alone."""
        running, needs = self._running(), instance.resources
        if needs.gpus > len(self._free_gpus):
            return False
        busy = sum(one.resources.world for one in running if not one.resources.gpus)
        if not needs.gpus and busy and busy + needs.world > self.jobs:
            return False
        planned = sum(one.resources.memory_gb for one in running)
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
            if ended and not finished:
                events.append(self._death(worker))
            if finished or ended:
                self._release(worker, keep=not ended and not worker.gpus)
        return events

    def _death(self, worker: WorkerProcess) -> Event:
        job = worker.job
        assert job is not None
        last, struck = worker.last_lines(), oom_kills.struck(worker.oom_kills)
        worker.signal(signal.SIGKILL)  # children it may have left in its group
        status = worker.child.wait()
        told = died(job.instance, status, Path(job.log), last, oom_killed=struck)
        failure = Failure(
            type="StepFailed",
            bases=["KitError"],
            message=told.what,
            why=told.why,
            next_step=told.next_step,
        )
        return event("step-failed", job.instance.id, failure=msgspec.to_builtins(failure))

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
        for worker in self._busy.values():
            worker.signal(signal.SIGKILL if kill else signal.SIGTERM)

    def close(self) -> None:
        """End all workers."""
        for worker in [*self._busy.values(), *self._idle]:
            worker.close()
        self._busy.clear()
        self._idle.clear()
        self._selector.close()
