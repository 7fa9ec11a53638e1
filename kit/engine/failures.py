"""What a failed step tells, on both sides of the process boundary.

The process of the step turns the exception into a :class:`Failure`; the run turns that into one
clear :class:`StepFailed`. Exceptions themselves never cross: unpickling them would run code.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import traceback
from pathlib import Path

from msgspec import Struct

from kit.engine.durable import explain, is_full
from kit.engine.plan import StepInstance
from kit.engine.secrets import redact
from kit.errors import KitError, Preflight, StepFailed

_MAX_TEXT = 2000
_MAX_TRACEBACK = 2400
"""Short enough that a failure's line fits a pipe's atomic write (4,096 bytes)."""


class Failure(Struct, frozen=True, kw_only=True):
    """An exception in words."""

    type: str
    """Class name."""
    bases: list[str] = []
    """Class names it also is."""
    message: str
    why: str = ""
    next_step: str = ""
    preflight: bool = False
    """Whether the machine, not the step, is at fault."""
    traceback: str = ""


class Carried(StepFailed):
    """A failure that another process described."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message, why=failure.why, next_step=failure.next_step)
        self.failure = failure


def failure_of(error: BaseException, *, home: Path, step: str) -> Failure:
    """Describe an exception raised by a step."""
    if isinstance(error, Carried):
        return error.failure
    told = _disk_trouble(error, home, step)
    if told is not None:
        error = told.with_traceback(error.__traceback__)
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    short = redact("".join(lines))[-_MAX_TRACEBACK:]
    message, why, next_step = str(error), "", ""
    if isinstance(error, KitError):
        message = error.what if error.where in ("", step) else f"{error.where}: {error.what}"
        why, next_step = error.why, error.next_step
    return Failure(
        type=type(error).__name__,
        bases=[base.__name__ for base in type(error).__mro__[1:]],
        message=redact(message)[:_MAX_TEXT],
        why=redact(why),
        next_step=redact(next_step),
        preflight=isinstance(error, Preflight),
        traceback=short,
    )


def _disk_trouble(error: BaseException, home: Path, step: str) -> KitError | None:
    """The clear message when the disk, not the step, is at fault."""
    if isinstance(error, OSError):
        if is_full(error) or str(error.filename or "").startswith(str(home)):
            return explain(error, where=step, path=home)
        return None
    full = os.strerror(errno.ENOSPC)
    if not isinstance(error, KitError) and full in str(error):
        # Libraries written in Rust or C++ (safetensors) wrap the system's error in their own.
        return explain(OSError(errno.ENOSPC, full), where=step, path=home)
    return None


def step_failed(failure: Failure, instance: StepInstance, log: Path | None) -> KitError:
    """The error a user sees."""
    names = {failure.type, *failure.bases}
    resume = f"see {log}; " if log is not None else ""
    resume += "mend the cause and run the same command again: finished steps are kept"
    if names & {"OutOfMemoryError", "MemoryError"}:
        return _out_of_memory(failure, instance, resume)
    if "TrainingDiverged" in names:
        return StepFailed(
            f"training diverged: {failure.message}",
            where=instance.id,
            why="a loss that is not finite makes every number after it meaningless",
            next_step="lower the learning rate (--set), or record the cell as diverged; " + resume,
        )
    if failure.preflight:
        return Preflight(
            failure.message, where=instance.id, why=failure.why, next_step=failure.next_step
        )
    plain = names & {"KitError", "ValueError"}
    what = failure.message if plain and failure.message else f"{failure.type}: {failure.message}"
    return StepFailed(
        what, where=instance.id, why=failure.why, next_step=failure.next_step or resume
    )


def _out_of_memory(failure: Failure, instance: StepInstance, resume: str) -> StepFailed:
    asked = re.search(r"[Tt]ried to allocate ([\d.]+ ?\w+)", failure.message)
    needs = instance.resources
    planned = f"{needs.gpu_memory_gb:g} GB a GPU" if needs.gpus else f"{needs.memory_gb:g} GB"
    return StepFailed(
        "out of memory" + (f" when asking for {asked.group(1)} more" if asked else ""),
        where=instance.id,
        why=f"the plan expected {planned}; {failure.message.splitlines()[0][:300]}"
        if failure.message
        else f"the plan expected {planned}",
        next_step="use a larger machine, run fewer steps at once (--jobs), or lower the "
        "micro-batch with --set; " + resume,
    )


def died(instance: StepInstance, status: int, log: Path | None, last_lines: str) -> StepFailed:
    """The error when a step's process ended without saying why.

    Args:
        instance: The step.
        status: Return code as ``subprocess`` gives it; negative for a signal.
        log: Where its output is.
        last_lines: The end of that output.
    """
    if status < 0:
        try:
            how = f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            how = f"was killed by signal {-status}"
    else:
        how = f"ended with status {status}"
    why = f"its last output: {redact(last_lines)}" if last_lines else "it printed nothing"
    if status == -signal.SIGKILL:
        why = (
            "the kernel does this when memory runs out; the plan expected "
            f"{instance.resources.memory_gb:g} GB. " + why
        )
    return StepFailed(
        f"the step's process {how}",
        where=instance.id,
        why=why,
        next_step=(f"see {log}; " if log is not None else "")
        + "run the same command again: finished steps are kept",
    )
