"""Submitting and cancelling, through submitit."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from kit.engine.process import worker_environment
from kit.engine.secrets import is_secret
from kit.engine.slurm import states
from kit.engine.slurm.states import Seen
from kit.engine.slurm.task import StepTask
from kit.errors import Preflight

_TRANSIENT = ("socket timed out", "unable to contact", "resource temporarily", "connection")
_LIMITS = ("submitlimit", "submit limit", "job violates accounting/qos policy")
_MOST_IDS = 400
"""Ids on one command line."""
_LAST_SECONDS = 5.0
_PASSED = ("PYTHONPATH", "PYTHONSAFEPATH", "KIT_STEPS_MODULES", "VLLM_BATCH_INVARIANT")
"""Set in the batch script, because some sites export nothing of the submitting environment."""


class SubmissionRefused(Exception):
    """sbatch said no.

    Args:
        text: Its words.
        transient: Whether trying later makes sense.
    """

    def __init__(self, text: str, *, transient: bool) -> None:
        super().__init__(text)
        self.transient = transient


class Cluster(Protocol):
    """What the executor needs of SLURM."""

    def submit(self, tasks: Sequence[StepTask], parameters: dict[str, Any]) -> list[str]:
        """Submit tasks that ask for the same, as one array; returns their job ids.

        Raises:
            SubmissionRefused: Nothing was submitted.
        """
        ...

    def ask(self, ids: Collection[str]) -> dict[str, Seen] | None:
        """States of the jobs that are known; ``None`` when there is no answer."""
        ...

    def explain(self, id: str) -> Seen:
        """All that is known of a job that has ended."""
        ...

    def cancel(self, ids: Collection[str], *, kill: bool) -> None:
        """End jobs; those that wait disappear, those that run are asked or killed."""
        ...


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


class SubmititCluster:
    """SLURM as submitit reaches it.

    Args:
        folder: Where batch scripts and the jobs' own output go; on a file system that all nodes
            share.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)

    def submit(self, tasks: Sequence[StepTask], parameters: dict[str, Any]) -> list[str]:
        """Submit tasks as one array (one alone as a plain job)."""
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
        """States, by squeue."""
        return states.ask(ids)

    def explain(self, id: str) -> Seen:
        """The state of one job that has ended."""
        return states.explain(id)

    def cancel(self, ids: Collection[str], *, kill: bool) -> None:
        """Cancel by scancel, elements of arrays included."""
        every = sorted(ids)
        for start in range(0, len(every), _MOST_IDS):
            some = every[start : start + _MOST_IDS]
            if kill:
                states.run(["scancel", "--full", "--signal=KILL", *some])
            states.run(["scancel", *some])

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
