"""What runs inside a SLURM job: one step, watched over as the local executor does it.

The step runs in a worker process below this one, exactly as on a local machine. What it tells is
appended to a file that the run on the login node reads. SIGTERM (scancel, preemption) stops the
step; submitit's signal before the time limit stops it and requeues the job, at most three times.
Checkpoints in the step's scratch folder survive all of that.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from kit.engine import hardware
from kit.engine.environment import require_environment, require_gpus, this_machine
from kit.engine.events import STEP_ENDS, Event, EventLog, event
from kit.engine.failures import failure_of
from kit.engine.job import Job, stop_seconds
from kit.engine.local import LocalExecutor
from kit.engine.runner import STOP_MARGIN
from kit.errors import StepFailed
from kit.plural import plural
from kit.results.plan import StepInstance


class StepTask:
    """A job as submitit carries it: everything in it is plain text.

    Args:
        job: The job, as JSON.
        events: File to append events to.
        threads: Threads of a CPU step.
    """

    def __init__(self, job: bytes, events: str, threads: int) -> None:
        self.job, self.events, self.threads = job, events, threads

    def __getstate__(self) -> dict[str, Any]:
        return {"job": self.job, "events": self.events, "threads": self.threads}

    def __call__(self) -> None:
        """Do the job; its end goes into the event file, whatever it is."""
        self._job = msgspec.json.decode(self.job, type=Job)
        self._log = EventLog(Path(self.events))
        self._asked = self._begun = self._ended = False
        self._executor = _executor(Path(self._job.log).parent, self.threads)
        signal.signal(signal.SIGTERM, lambda number, frame: self._stop())
        try:
            self._pass_on(_started(self._job.instance))
            check(self._job.instance)
            self._begun = not self._asked  # a signal may have come before there was a step to stop
            if self._begun:
                self._executor.start(self._job)
            if self._asked:  # or while it was started
                self._stop()
            self._follow(lambda: False)
        except Exception as error:
            # submitit raises in here too: a job that may not be requeued any more ends like this.
            step, home = self._job.instance.id, Path(self._job.home)
            failure = msgspec.to_builtins(failure_of(_clear(error), home=home, step=step))
            self._log(event("step-failed", step, failure=failure))
            raise
        finally:
            self._executor.close()
            self._log.close()

    def checkpoint(self) -> Any:
        """Called by submitit when time is nearly up: stop the step, go on in a requeued job."""
        from submitit.helpers import DelayedSubmission

        self._stop()
        deadline = time.monotonic() + stop_seconds(self._job.instance) + STOP_MARGIN
        self._follow(lambda: time.monotonic() > deadline)
        return DelayedSubmission(StepTask(self.job, self.events, self.threads))

    def _stop(self) -> None:
        self._asked = True
        self._executor.stop(kill=False)

    def _follow(self, enough: Callable[[], bool]) -> None:
        """Pass events on until the step has ended."""
        if not self._begun:
            self._pass_on(event("step-stopped", self._job.instance.id))
        while not self._ended and not enough():
            for item in self._executor.poll(0.25):
                self._pass_on(item)

    def _pass_on(self, item: Event) -> None:
        if self._ended:
            return
        if self._asked and item["event"] == "step-failed":
            # A worker that was still starting dies of the signal; that is no failure of the step.
            item = event("step-stopped", item["step"])
        self._ended = item["event"] in STEP_ENDS
        self._log(item)


def _executor(logs: Path, threads: int) -> LocalExecutor:
    gpus = [gpu.index for gpu in hardware.gpus()]
    memory_gb = hardware.memory_gb()
    return LocalExecutor(jobs=1, memory_gb=memory_gb, gpus=gpus, logs=logs, threads=threads)


def _clear(error: Exception) -> Exception:
    """submitit's refusal to requeue once more, in words for whoever runs the kit."""
    if type(error).__name__ != "UncompletedJobError" or "timed-out" not in str(error):
        return error
    return StepFailed(
        "the job reached its time limit again after it had been requeued three times",
        why=str(error),
        next_step="give it more time, --slurm time=D-HH:MM:SS, and run the same command again: "
        "it goes on from its checkpoints",
    )


def _started(instance: StepInstance) -> Event:
    environ = os.environ
    job = environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in environ:
        job = f"{environ['SLURM_ARRAY_JOB_ID']}_{environ.get('SLURM_ARRAY_TASK_ID', '')}"
    host, times = socket.gethostname(), int(environ.get("SLURM_RESTART_COUNT", "0") or 0)
    again = f", restarted {plural(times, 'time')}" if times else ""
    return event(
        "job-started",
        instance.id,
        job=job,
        host=host,
        restarts=times,
        reason=f"SLURM job {job} on {host}{again}",
    )


def check(instance: StepInstance) -> None:
    """Refuse a node that is not what the plan was made for.

    Raises:
        Preflight: Too few GPUs, GPUs of another architecture, or other library versions (these
            are part of the key).
    """
    here = this_machine()
    gres = "ask for them by --slurm gpu.gres=gpu:N or as your cluster wants it"
    require_gpus(instance, len(here.gpus), gres)
    require_environment(
        instance,
        here,
        next_step="choose nodes by --slurm gpu.constraint=NAME, or make the plan where it runs, in "
        f"the same image and for these GPUs: KIT_GPU_ARCH={here.gpu_arch}",
    )
