"""What a failed step says, on both sides of the process boundary.

The process of the step turns the exception into a :class:`Failure`; the run turns that into one
clear :class:`StepFailed`. Exceptions themselves never cross: unpickling them would run code.

Out of memory is read from what libraries say about it. torch has a class for it, numpy another,
vLLM a ``ValueError`` or ``RuntimeError`` whose cause is torch's, the system an ``OSError``. Sources
of the texts: torch's ``CUDACachingAllocator.cpp`` and ``alloc_cpu.cpp``, vLLM's
``v1/worker/utils.py``, numpy's ``_core/_exceptions.py``.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from kit.durable import explain, is_full
from kit.engine.events import Event, event
from kit.engine.registry import Remedy, StepKind, load_registry
from kit.engine.secrets import redact
from kit.errors import InvalidInput, KitError, Preflight, StepFailed
from kit.results.plan import StepInstance

_MAX_TEXT = 2000
_MAX_NOTES = 500
_MAX_TRACEBACK = 2400
"""Short enough that a failure's line fits a pipe's atomic write (4,096 bytes)."""


_GPU = re.compile(
    r"(CUDA|HIP) (error: )?out of memory|CUDA_ERROR_OUT_OF_MEMORY|CUBLAS_STATUS_ALLOC_FAILED"
    r"|Free memory on device .* less than desired GPU memory utilization",
    re.DOTALL,
)
_HOST = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|Cannot allocate memory"
    r"|Unable to allocate [\d.]+ \w+ for an array|std::bad_alloc"
)
_SIZE = r"([\d.]+ ?(?:bytes|[KMGTPE]iB))"
_ASKED = (
    re.compile(rf"[Tt]ried to allocate {_SIZE}"),
    re.compile(rf"Unable to allocate {_SIZE}"),
    re.compile(rf"desired GPU memory utilization \([\d.]+, {_SIZE}\)"),
)
_FREE = re.compile(rf"of which {_SIZE} is free|Free memory on device [^(]*\(([\d.]+)/[\d.]+ GiB\)")
_TOTAL = re.compile(rf"total capac(?:i)?ty of {_SIZE}|Free memory on device [^(]*\([\d.]+/([\d.]+)")
_OTHER = re.compile(rf"Process (\d+) has {_SIZE} memory in use")


class Shortage(Struct, frozen=True, kw_only=True):
    """Memory that was asked for and not there; sizes as the library printed them."""

    gpu: bool
    """Of a GPU; otherwise of the machine."""
    asked: str = ""
    free: str = ""
    total: str = ""
    others: list[str] = []
    """``process 4242 holds 40.00 GiB``, one for each other process that torch saw on the GPU."""

    def facts(self) -> str:
        """What was free, of how much, and who has the rest; empty when nothing was said."""
        said = []
        if self.free:
            of = f" of {self.total}" if self.total else ""
            said.append(f"{self.free}{of} {'of the GPU ' * self.gpu}was free")
        return "; ".join([*said, *self.others])


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
    """Whether the machine or an input, and not the step, is at fault."""
    left: str = ""
    """How far the step came and what it kept."""
    shortage: Shortage | None = None
    """Memory that was not there, when that is what the exception means."""
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
    disk = _disk_trouble(error, home, step)
    if disk is not None:
        error = disk.with_traceback(error.__traceback__)
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
        preflight=isinstance(error, InvalidInput | Preflight),
        left=redact("; ".join(getattr(error, "__notes__", [])))[-_MAX_NOTES:],
        shortage=None if isinstance(error, KitError) else shortage_of(error),
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


def failed(instance: StepInstance, message: str, why: str, next_step: str = "") -> Event:
    """The event of a step that failed by no exception of its own."""
    said = Failure(
        type="StepFailed", bases=["KitError"], message=message, why=why, next_step=next_step
    )
    return event("step-failed", instance.id, failure=msgspec.to_builtins(said))


def step_failed(failure: Failure, instance: StepInstance, log: Path | None) -> KitError:
    """The error a user sees."""
    names = {failure.type, *failure.bases}
    resume = f"see {log}; " if log is not None else ""
    resume += "mend the cause and run the same command again: finished steps are kept"
    if failure.shortage is not None:
        return _out_of_memory(failure, failure.shortage, instance, resume)
    if "TrainingDiverged" in names:
        return _diverged(failure, instance, resume)
    if failure.preflight:
        return Preflight(
            failure.message, where=instance.id, why=failure.why, next_step=failure.next_step
        )
    plain = names & {"KitError", "ValueError"}
    what = failure.message if plain and failure.message else f"{failure.type}: {failure.message}"
    return StepFailed(
        what, where=instance.id, why=failure.why, next_step=failure.next_step or resume
    )


def _diverged(failure: Failure, instance: StepInstance, resume: str) -> StepFailed:
    why = "every number after it would be meaningless, so the training stopped there"
    return StepFailed(
        f"training diverged: {failure.message}",
        where=instance.id,
        why=_sentence(why, failure.left),
        next_step=_choices(
            _cures(instance, lambda kind: kind.steadies),
            "or record the cell as diverged in the expectation",
        )
        + resume,
    )


def _out_of_memory(
    failure: Failure, short: Shortage, instance: StepInstance, resume: str
) -> StepFailed:
    where = "the GPU is out of memory" if short.gpu else "out of memory"
    more = "run fewer steps at once (--jobs 1), or use a machine with more memory"
    if short.gpu:
        more = "or use a GPU with more memory"
        if short.others:
            more = "or end the other processes on the GPU, " + more
    # The library's own words only where they say more than what was taken from them.
    words = "" if short.facts() else failure.message.partition("\n")[0][:300]
    return StepFailed(
        where + (f": it asked for {short.asked} more" if short.asked else ""),
        where=instance.id,
        why=_sentence(short.facts(), planned(instance), words, failure.left),
        next_step=_choices(_cures(instance, lambda kind: kind.lowers_memory), more) + resume,
    )


def planned(instance: StepInstance) -> str:
    """What the plan said that a step needs."""
    needs = instance.resources
    if needs.gpus:
        return f"the plan expected {needs.gpu_memory_gb:g} GB a GPU"
    return f"the plan expected {needs.memory_gb:g} GB"


def _cures(instance: StepInstance, chosen: Callable[[StepKind], Sequence[Remedy]]) -> list[str]:
    """What to type for an instance, of what its kind declares as a cure; best first."""
    registry = load_registry()
    if instance.kind not in registry.names():
        return []
    kind = registry.get(instance.kind)
    try:
        params = msgspec.convert(instance.params, kind.params)
    except msgspec.ValidationError:  # a plan made by another version of the kit
        return []
    typed = []
    for remedy in chosen(kind):
        value = remedy.value(params)
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            typed.append(f"--set {instance.step}.{remedy.param}={text} ({remedy.effect})")
    return typed


def _choices(typed: list[str], more: str) -> str:
    if not typed:
        more = more.removeprefix("or ")
    return "; ".join([*typed, more]) + "; "


def _sentence(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def died(
    instance: StepInstance,
    status: int,
    log: Path | None,
    last_lines: str,
    *,
    oom_killed: bool | None = None,
) -> StepFailed:
    """The error when a step's process ended without saying why.

    Args:
        instance: The step.
        status: Return code as ``subprocess`` gives it; negative for a signal.
        log: Where its output is.
        last_lines: The end of that output.
        oom_killed: Whether the kernel counted an out-of-memory kill meanwhile; ``None`` if unknown.
    """
    said = f"its last output: {redact(last_lines)}" if last_lines else "it printed nothing"
    see = f"see {log}; " if log is not None else ""
    again = "run the same command again: finished steps are kept"
    if status == -signal.SIGKILL and oom_killed is not False:
        sure = "the kernel's out-of-memory killer ended a process at that time"
        guess = "the kernel does this when memory runs out"
        return StepFailed(
            "the step's process was killed by SIGKILL" + ": out of memory" * bool(oom_killed),
            where=instance.id,
            # The machine's memory, also of a step on a GPU.
            why=_sentence(
                sure if oom_killed else guess,
                f"the plan expected {instance.resources.memory_gb:g} GB",
                said,
            ),
            next_step="run fewer steps at once (--jobs 1), or use a machine with more memory; "
            + "".join(f"{text}; " for text in _cures(instance, lambda kind: kind.lowers_memory))
            + see
            + again,
        )
    if status == -signal.SIGKILL:
        said = "not by the kernel for want of memory, it counted no such kill; " + said
    return StepFailed(
        f"the step's process {_how(status)}", where=instance.id, why=said, next_step=see + again
    )


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def shortage_of(error: BaseException) -> Shortage | None:
    """The shortage that an exception, or what it was raised from, tells of."""
    known: Shortage | None = None
    for raised in _chain(error):
        names = {kind.__name__ for kind in type(raised).__mro__}
        said = _shortage_in(names, str(raised), getattr(raised, "errno", None))
        # The innermost has the figures; what was raised from it only says that it happened.
        if said is not None and (known is None or said.asked):
            known = said
    return known


def _shortage_in(names: set[str], message: str, number: int | None) -> Shortage | None:
    """The shortage in an exception's class names, text and errno, or ``None``."""
    gpu = "OutOfMemoryError" in names or bool(_GPU.search(message))
    host = "MemoryError" in names or number == errno.ENOMEM or bool(_HOST.search(message))
    if not gpu and not host:
        return None
    asked = next(filter(None, (pattern.search(message) for pattern in _ASKED)), None)
    return Shortage(
        gpu=gpu,
        asked=_readable(asked.group(1)) if asked else "",
        free=_group(_FREE.search(message)),
        total=_group(_TOTAL.search(message)),
        others=[f"process {pid} holds {size}" for pid, size in _OTHER.findall(message)],
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and what it came from, as a traceback shows them."""
    seen: set[int] = set()
    raised: BaseException | None = error
    while raised is not None and id(raised) not in seen:
        seen.add(id(raised))
        yield raised
        raised = raised.__cause__ or (None if raised.__suppress_context__ else raised.__context__)


def _group(match: re.Match[str] | None) -> str:
    """The group that took part; vLLM prints free and total memory without a unit each."""
    if match is None:
        return ""
    return match.group(1) or f"{match.group(2)} GiB"


def _readable(size: str) -> str:
    if not size.endswith("bytes"):
        return size
    number = float(size.removesuffix("bytes"))
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.4g} {unit}"
        number /= 1024
    return f"{number:.4g} TiB"
