"""SLURM: submitting through submitit, what it says of jobs, and what that means for a step.

submitit asks ``sacct`` alone, which small clusters do not have; ``squeue`` and ``scontrol`` know
jobs that ended a few minutes ago as well, and are asked first.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.engine.process import worker_environment
from kit.engine.secrets import is_secret
from kit.engine.slurm.task import StepTask
from kit.errors import Preflight

_TRANSIENT = ("socket timed out", "unable to contact", "resource temporarily", "connection")
_LIMITS = ("submitlimit", "submit limit", "job violates accounting/qos policy")
_MOST_IDS = 400
"""Ids on one command line."""
_LAST_SECONDS = 5.0
LIVE = {
    "CONFIGURING", "COMPLETING", "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESIZING",
    "RUNNING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "SUSPENDED",
}  # fmt: skip
_ANSWER_SECONDS = 60
_PASSED = ("PYTHONPATH", "PYTHONSAFEPATH", "KIT_STEPS_MODULES", "VLLM_BATCH_INVARIANT")
"""Set in the batch script, because some sites export nothing of the submitting environment."""


@dataclass(frozen=True)
class Seen:
    """A job as SLURM reports it.

    Attributes:
        state: SLURM's word, in capitals; empty when SLURM does not know the job.
        reason: Why it waits or ended, where SLURM says so.
        node: Where it is or was.
        exit_code: ``status:signal``.
    """

    state: str = ""
    reason: str = ""
    node: str = ""
    exit_code: str = ""

    @property
    def live(self) -> bool:
        """Whether it may still do something."""
        return self.state in LIVE

    def words(self) -> str:
        """One phrase for messages."""
        parts = [self.state or "unknown to SLURM"]
        if self.exit_code and self.exit_code != "0:0":
            parts.append(f"exit code {self.exit_code}")
        if self.reason and self.reason != "None":
            parts.append(f"reason {self.reason}")
        if self.node and self.node != "(null)":
            parts.append(f"on {self.node}")
        return ", ".join(parts)


class SubmissionRefused(Exception):
    """sbatch said no.

    Args:
        text: Its words.
        transient: Whether trying later makes sense.
    """

    def __init__(self, text: str, *, transient: bool) -> None:
        super().__init__(text)
        self.transient = transient


def require() -> None:
    """Refuse early where SLURM or submitit is missing.

    Raises:
        Preflight: One of them is.
    """
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise Preflight(
            "--executor slurm needs submitit, which is not installed",
            next_step="pip install 'safety-repro-kit[slurm]', in the environment the jobs use",
        ) from None
    absent = [name for name in ("sbatch", "squeue", "scancel", "srun") if not shutil.which(name)]
    if absent:
        raise Preflight(
            f"this machine has no {', '.join(absent)}",
            why="jobs are submitted from a machine that has SLURM's commands, a login node",
            next_step="log in there, or leave --executor slurm out",
        )


class Cluster:
    """SLURM as submitit reaches it.

    Args:
        folder: Where batch scripts and the jobs' own output go; on a file system that all nodes
            share.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)

    def submit(self, tasks: Sequence[StepTask], parameters: dict[str, Any]) -> list[str]:
        """Submit tasks that ask for the same as one array (one alone as a plain job); their ids.

        Raises:
            SubmissionRefused: Nothing was submitted.
        """
        with submitting(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries, about their own future
            import submitit

            executor = submitit.SlurmExecutor(self.folder)
            try:
                executor.update_parameters(
                    **parameters, array_parallelism=len(tasks), setup=_exports(), use_srun=True
                )
                jobs = executor.submit_array(list(tasks))
            except (RuntimeError, OSError) as error:
                # submitit raises its FailedJobError with what sbatch printed.
                text = " ".join(str(error).split())
                # Without words sbatch was killed, for instance by the Ctrl-C that this run hears.
                wait = not text or any(word in text.lower() for word in (*_TRANSIENT, *_LIMITS))
                raise SubmissionRefused(text or repr(error), transient=wait) from error
        return [job.job_id for job in jobs]

    def ask(self, ids: Collection[str]) -> dict[str, Seen] | None:
        """State of each job that squeue still knows; ``None`` when it does not answer."""
        jobs = f"--jobs={','.join(parents(ids))}"
        form = ["--noheader", "--array", "--states=all", "--format=%i|%T|%r|%N"]
        done = run(["squeue", *form, jobs])
        if done is None:
            return None
        if done.returncode:
            return {} if "Invalid job id" in done.stderr else None
        return parse_squeue(done.stdout)

    def explain(self, id: str) -> Seen:
        """All that SLURM says of one job that has ended: ``scontrol``, else ``sacct``."""
        done = run(["scontrol", "show", "job", "--oneliner", id])
        if done is not None and done.returncode == 0:
            fields = dict(re.findall(r"(\w+)=(\S+)", done.stdout.splitlines()[0]))
            return Seen(
                state=fields.get("JobState", ""),
                reason=fields.get("Reason", ""),
                node=fields.get("NodeList", ""),
                exit_code=fields.get("ExitCode", ""),
            )
        wanted = "--format=State,ExitCode,NodeList"
        done = run(["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={id}", wanted])
        if done is not None and done.returncode == 0 and done.stdout.count("|") >= 2:
            state, code, node = done.stdout.splitlines()[0].split("|")[:3]
            return Seen(state=state.split()[0] if state else "", exit_code=code, node=node)
        return Seen()

    def cancel(self, ids: Collection[str], *, kill: bool) -> None:
        """End jobs, elements of arrays included: those that run are asked or killed."""
        every = sorted(ids)
        for start in range(0, len(every), _MOST_IDS):
            some = every[start : start + _MOST_IDS]
            if kill:
                run(["scancel", "--full", "--signal=KILL", *some])
            run(["scancel", *some])

    def tidy(self, finished: Collection[str]) -> None:
        """Remove pickles and empty logs of jobs that have ended; what they printed stays.

        Args:
            finished: Jobs whose steps ended well; submitit still writes a last file for them.
        """
        last = [self.folder / f"{id}_0_result.pkl" for id in finished]
        deadline = time.monotonic() + _LAST_SECONDS
        while not all(path.exists() for path in last) and time.monotonic() < deadline:
            time.sleep(0.1)
        for path in self.folder.iterdir():
            if path.suffix == ".pkl" or path.name.startswith(".submission_file_"):
                path.unlink(missing_ok=True)
            elif path.suffix in (".out", ".err"):
                with contextlib.suppress(OSError):
                    if path.stat().st_size == 0:
                        path.unlink()


def _exports() -> list[str]:
    environ = worker_environment(os.environ, threads=None, gpus=[])
    return [f"export {name}={shlex.quote(environ[name])}" for name in _PASSED if name in environ]


@contextlib.contextmanager
def submitting() -> Iterator[None]:
    """While sbatch runs: no credential goes into a job, no trace of a job around this run either.

    sbatch hands its environment to the job, and the controller keeps it on disk. submitit prints
    what sbatch complains about; here it becomes an error instead.
    """
    hidden = {
        name: os.environ.pop(name)
        for name, value in list(os.environ.items())
        if is_secret(name, value)
        or (name.startswith(("SLURM_", "SUBMITIT_")) and name != "SLURM_CONF")
    }
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        os.environ.update(hidden)


def run(line: list[str]) -> subprocess.CompletedProcess[str] | None:
    """Run one of SLURM's commands; ``None`` when it is absent or does not answer."""
    try:
        return subprocess.run(
            line, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def parents(ids: Iterable[str]) -> list[str]:
    """Job ids without array indices, each once."""
    return sorted({id.partition("_")[0] for id in ids})


def parse_squeue(text: str) -> dict[str, Seen]:
    """Lines of ``id|state|reason|node``."""
    states = {}
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) == 4:
            for id in each_id(parts[0]):
                states[id] = Seen(state=parts[1], reason=parts[2], node=parts[3])
    return states


def each_id(text: str) -> list[str]:
    """Job ids of ``12``, ``12_3`` or, as squeue shows what never started, ``12_[4-6,9%2]``."""
    job, bracket, rest = text.partition("_[")
    if not bracket:
        return [text]
    ids = []
    for part in rest.rstrip("]").partition("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            ids += [f"{job}_{index}" for index in range(int(first), int(last or first) + 1)]
    return ids


def advice(seen: Seen) -> tuple[str, str]:
    """(why, what to type) for a job that ended without the step's end being told."""
    again = "run the same command again: finished steps are kept, long ones go on from checkpoints"
    if seen.state == "TIMEOUT":
        return "it reached its time limit", f"give it more: --slurm time=D-HH:MM:SS; {again}"
    if seen.state == "OUT_OF_MEMORY":
        return "it used more memory than it had asked for", f"--slurm mem=SIZE; {again}"
    if seen.state in ("NODE_FAIL", "BOOT_FAIL"):
        node = seen.node or "NODE"
        return "its node failed", f"{again}; to avoid the node: --slurm exclude={node}"
    if seen.state == "CANCELLED":
        return "somebody, or the cluster, cancelled it", again
    if seen.state == "DEADLINE":
        return "its deadline passed", f"leave --slurm deadline out; {again}"
    if seen.exit_code.endswith(":9") or seen.exit_code.startswith("137:"):
        return (
            "its process was killed from outside; the kernel does this when memory runs out",
            f"if it happens again: --slurm mem=SIZE; {again}",
        )
    if not seen.state:
        return "SLURM forgets jobs after some minutes, or its controller was restarted", again
    return "the process that watches over the step ended without telling why", again
