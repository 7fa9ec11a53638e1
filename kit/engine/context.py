"""What a step function is given besides its parameters."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from kit.engine.events import Emit, event
from kit.engine.job import Job
from kit.engine.registry import ModelInput, PinInput, StepInput, StepKind
from kit.engine.secrets import redact
from kit.engine.store import Store
from kit.results.types import Canary

Made = TypeVar("Made")
PROGRESS_SECONDS = 0.2
"""At most one progress event in this time; functions may report every iteration."""
_NOTHING, _LATE, _STOPPING = range(3)


class Stopped(BaseException):
    """The run asked this process to stop; not an ``Exception``, so that steps do not swallow it."""


class Stop:
    """What this process knows of being asked to stop.

    Attributes:
        asked: Whether it was.
        waits: Whether the running step asks when to save, and so decides itself where it stops.
    """

    def __init__(self) -> None:
        self.asked = self.waits = False

    def begin(self) -> None:
        """A step begins."""
        self.waits = False

    def ask(self) -> None:
        """A signal came: the second one ends any step at once.

        Raises:
            Stopped: The running step does not save by itself.
        """
        now = self.asked or not self.waits
        self.asked = True
        if now:
            raise Stopped


STOP = Stop()


def _agreed(wanted: int) -> int:
    """The largest wish of all processes of this step."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return wanted
    import torch
    from torch import distributed

    if not distributed.is_initialized():
        raise ValueError("a step of several processes asks what is due after init_process_group")
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    most = torch.tensor(wanted, device=device)
    distributed.all_reduce(most, distributed.ReduceOp.MAX)
    return int(most)


class HiddenAxes(Mapping[str, Any]):
    """Axes that are not in the key, and therefore must not be looked at."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def _refuse(self) -> NoReturn:
        raise ValueError(
            f"step kind {self._kind!r} reads axes, which are not part of its key: take the value "
            'as a parameter ("${axis.field}" in the manifest), or declare reads_axes=True'
        )

    def __getitem__(self, key: str) -> Any:
        self._refuse()

    def __iter__(self) -> Iterator[str]:
        self._refuse()

    def __len__(self) -> int:
        self._refuse()


class StepContext:
    """The context of one running step instance.

    Attributes:
        instance: Instance id, e.g. ``train[pair=newer-0]``.
        axes: Axis name -> value of this instance.
        roles: Axis name -> ``replicate``, ``setting`` or ``group``, of every axis that the function
            may look at: its own with ``reads_axes``, and those of its lists. In the key.
        out: Empty folder to write the promised outputs into.
        scratch: Folder that survives a kill (checkpoints of long training); emptied on success.
        device: ``cpu`` or ``cuda``.
        resources: What the plan gives this instance. Not in the key: only speed may follow it.
        rehearsal: True when shapes are true and weights and data are stand-ins.
        canaries: Those recorded so far.
    """

    def __init__(
        self,
        job: Job,
        kind: StepKind,
        *,
        store: Store,
        out: Path,
        scratch: Path,
        emit: Emit,
        ahead: dict[str, Any] | None = None,
    ) -> None:
        self.instance = job.instance.id
        axes = job.instance.axes
        self.axes: Mapping[str, Any] = axes if kind.reads_axes else HiddenAxes(kind.name)
        self.roles = dict(job.instance.roles)
        self.out = out
        self.scratch = scratch
        self.device = "cuda" if job.instance.resources.gpus else "cpu"
        self.resources = job.instance.resources
        self.rehearsal = job.rehearsal
        self.canaries: list[Canary] = []
        self._job, self._kind, self._store, self._emit = job, kind, store, emit
        self._ahead = {} if ahead is None else ahead
        self._last_progress = -math.inf
        self._last_saved = time.monotonic()
        self._due = _NOTHING
        self._reached = ""

    def pin(self, name: str) -> PinInput:
        """The pinned input of this name."""
        self._declared(name, "pin")
        pin = self._job.pins[name]
        return PinInput(id=pin.id, path=Path(pin.path), attributes=pin.attributes)

    def model(self, name: str) -> ModelInput:
        """The model of this name, wherever it comes from."""
        self._declared(name, "model")
        use, pin = self._job.instance.models[name], self._job.pins.get(name)
        if pin is not None:
            return ModelInput(pin.id, Path(pin.path), use.attributes, pinned=True)
        (made,) = self._job.steps[name]
        folder = self._store.path(made.key) / use.folder
        return ModelInput(made.instance, folder, use.attributes, pinned=False)

    def step(self, name: str) -> StepInput:
        """The single upstream step of this name."""
        self._declared(name, "step")
        return self._inputs(name, readable=self._kind.reads_axes)[0]

    def steps(self, name: str) -> list[StepInput]:
        """All upstream instances of this name, in plan order."""
        self._declared(name, "steps")
        return self._inputs(name, readable=True)

    def _inputs(self, name: str, *, readable: bool) -> list[StepInput]:
        return [
            StepInput(
                instance=made.instance,
                path=self._store.path(made.key),
                axes=made.axes if readable else HiddenAxes(self._kind.name),
                params=made.params,
            )
            for made in self._job.steps[name]
        ]

    def _declared(self, name: str, wanted: str) -> None:
        if self._kind.inputs.get(name) != wanted:
            declared = ", ".join(f"{n} ({k})" for n, k in self._kind.inputs.items()) or "none"
            raise ValueError(
                f"step kind {self._kind.name!r} declares no input {name!r} of kind {wanted!r}; "
                f"its inputs: {declared}"
            )

    def has(self, name: str) -> bool:
        """Whether the manifest gives this optional input."""
        return name in self._job.pins or name in self._job.steps

    def made(self, name: str, make: Callable[[], Made]) -> Made:
        """What the kind's ``ahead`` made under this name before the job came, else made now."""
        return self._ahead.pop(name) if name in self._ahead else make()

    def due(self) -> bool:
        """Whether state should be saved now: the interval is over, or the step is to stop.

        Call it where saving is possible, at best once an optimizer step; then save and call
        :meth:`saved`. All processes of a step call it together and get the same answer.
        """
        STOP.waits = True
        minutes = self.resources.save_minutes or self._kind.save_minutes
        late = time.monotonic() - self._last_saved >= 60 * minutes
        self._due = _agreed(_STOPPING if STOP.asked else _LATE if late else _NOTHING)
        return self._due != _NOTHING

    def saved(self) -> None:
        """State is saved. Does not return if the step is to stop."""
        self._last_saved = time.monotonic()
        if self._due == _STOPPING:
            raise Stopped

    def progress(self, done: int, total: int, unit: str) -> None:
        """Report progress; cheap enough to call every iteration."""
        self._reached = f"{done} of {total} {unit}"
        now = time.monotonic()
        if now - self._last_progress < PROGRESS_SECONDS and done < total:
            return
        self._last_progress = now
        self._emit(event("progress", self.instance, done=done, total=total, unit=unit))

    def left(self) -> str:
        """How far the function came and where its checkpoints are, for the message of a failure."""
        said = [f"{self._reached} were done"] if self._reached else []
        if any(not path.name.startswith(".") for path in self.scratch.glob("*")):
            said.append(f"what it kept is in {self.scratch}")
        return "; ".join(said)

    def metric(self, name: str, value: float, step: int) -> None:
        """Log one point of a curve to the event log."""
        number = float(value)
        shown: float | str = number if math.isfinite(number) else repr(number)
        self._emit(event("metric", self.instance, name=name, value=shown, at=step))

    def canary(self, id: str, passed: bool, detail: str, cells: list[str] | None = None) -> None:
        """Record evidence that the mechanism ran (written to ``canaries.json``)."""
        made = Canary(
            id=id,
            step=self.instance,
            passed=bool(passed),
            detail=redact(detail),
            cells=list(cells or []),
        )
        self.canaries.append(made)
        self._emit(event("canary", self.instance, id=id, passed=made.passed, detail=made.detail))

    def note(self, text: str) -> None:
        """Log a line for humans."""
        self._emit(event("note", self.instance, text=redact(text)))
