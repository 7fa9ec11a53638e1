"""Plain fine-tuning: what an attack, a refusal training or a baseline needs.

The loop knows steps, a schedule, clipping, measuring and resuming. What is trained, on what and by
which loss comes from outside.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.train.clock import Clock
from kit.train.engine import AVERAGED, BatchT, Engine, Progress
from kit.train.errors import HIGHEST_LOSS, TrainingDiverged, divergence
from kit.train.randomness import random_state, set_random_state
from kit.train.schedules import Schedule

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kit.train.checkpoints import CheckpointFolder
    from kit.train.streams import Streams

STOP = "stop"
GO_ON = "go-on"
_COST_TIMES = 10.0
"""Training lasts so many times as long as the writing of a checkpoint, at least."""
_STATE_BYTES, _WRITTEN_A_SECOND = 12, 1e9
"""Of a trained weight: fp32 master and two moments; and of a disk, until a checkpoint was timed."""


@dataclass(frozen=True)
class FineTuning:
    """How a run goes; the optimizer and its peak rate are the engine's.

    Attributes:
        steps: Optimizer steps of the whole run; the schedule's horizon.
        schedule: Of the learning rate.
        clip: Largest L2 norm of a gradient; ``None`` leaves gradients as they are.
        measure_at: Steps after which the model is measured; 0 is before the first.
        weights: Which weights are measured (:data:`kit.train.engine.WEIGHTS`).
        highest_loss: A loss above this has diverged. A loss in other units than nats a token needs
            another number.
        highest_growth: So has one that is this many times the first; ``None``: any may be.
        diverged: ``stop`` raises; ``go-on`` notes the first such step and trains on, as runs did
            whose results were reported.
        save_every: Steps between checkpoints; 0: none by steps.
        save_seconds: A checkpoint after the step that ends this long after the last one, later
            where writing it would take more than a tenth of that time; 0: after every step.
    """

    steps: int
    schedule: Schedule = field(default_factory=Schedule)
    clip: float | None = None
    measure_at: tuple[int, ...] = ()
    weights: str = AVERAGED
    highest_loss: float = HIGHEST_LOSS
    highest_growth: float | None = None
    diverged: str = STOP
    save_every: int = 0
    save_seconds: float = 120.0

    def __post_init__(self) -> None:
        """Refuse settings that would silently do nothing."""
        if self.steps < 0 or any(not 0 <= step <= self.steps for step in self.measure_at):
            raise ValueError(f"measuring at {self.measure_at} does not fit {self.steps} steps")
        if self.diverged not in (STOP, GO_ON):
            raise ValueError(f"diverged is {STOP!r} or {GO_ON!r}, not {self.diverged!r}")


@dataclass
class FineTuned:
    """What came of a run, earlier processes' steps included.

    Attributes:
        losses: Of each step, before its update.
        rates: Learning rate of each step.
        norms: L2 norm of each step's gradient, before clipping.
        trajectory: (steps done, what was measured there), ascending.
        diverged_at: The first step, counted from 0, whose loss or gradient could not be used, and
            why; ``None`` if there was none.
    """

    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    trajectory: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    diverged_at: tuple[int, str] | None = None

    def curves(self) -> dict[str, list[Any]]:
        """As JSON values, for a checkpoint."""
        return {
            "losses": self.losses,
            "rates": self.rates,
            "norms": self.norms,
            "trajectory": [list(point) for point in self.trajectory],
            "diverged": list(self.diverged_at or ()),
        }

    @classmethod
    def from_curves(cls, curves: Mapping[str, list[Any]]) -> FineTuned:
        """The inverse of :meth:`curves`."""
        diverged = curves["diverged"]
        return cls(
            losses=curves["losses"],
            rates=curves["rates"],
            norms=curves["norms"],
            trajectory=[(step, values) for step, values in curves["trajectory"]],
            diverged_at=(diverged[0], diverged[1]) if diverged else None,
        )


def finetune(
    engine: Engine,
    loss: Callable[[nn.Module, BatchT], Tensor],
    batches: Callable[[int], Sequence[BatchT]],
    plan: FineTuning,
    *,
    measure: Callable[[nn.Module, int], Mapping[str, Any]] | None = None,
    streams: Streams | None = None,
    folder: CheckpointFolder | None = None,
    on_step: Callable[[int, float], None] | None = None,
    clock: Clock | None = None,
) -> FineTuned:
    """Train to the plan's last step, from the start or from the newest checkpoint.

    Args:
        engine: Model and optimizer.
        loss: Share of a micro-batch (:meth:`kit.train.engine.Engine.accumulate`).
        batches: This process's micro-batches of step i, counted from 0; called once a step, in
            order, so that it may draw from ``streams``.
        plan: How the run goes.
        measure: Called with the model, ready for measuring, and the steps done; returns JSON
            values. Whatever it draws at random, the training does not notice.
        streams: What ``batches`` draws from; its positions are saved and restored.
        folder: Of checkpoints; ``None`` saves nothing.
        on_step: Called with the step's number, counted from 1, and its loss.
        clock: Gets a mark after each part of a step.

    Raises:
        TrainingDiverged: A loss or gradient that cannot be used, unless the plan says to go on.
    """
    run = _Run(engine, plan, streams, folder)
    result, start = run.begin()
    mark = (clock or Clock()).mark
    mark("starting")

    def measured(step: int) -> None:
        points = [done for done, _ in result.trajectory]
        if measure is not None and step in plan.measure_at and step not in points:
            with engine.evaluating(plan.weights) as model:
                result.trajectory.append((step, dict(measure(model, step))))
            mark("measuring")

    try:
        measured(start)
        for step in range(start, plan.steps):
            with run.saved_if_stopped(step):
                parts = batches(step)
                value = float(engine.accumulate(loss, parts))
                norm = engine.gradient_norm() if plan.clip is None else engine.clip(plan.clip)
                run.watch(step, value, norm, parts)
                mark("passes")
            peak = engine.optimizer.spec.learning_rate
            rate = plan.schedule.rate(step, peak=peak, steps=plan.steps)
            engine.step(rate)
            mark("update")
            result.losses.append(value)
            result.rates.append(rate)
            result.norms.append(norm)
            if on_step is not None:
                on_step(step + 1, value)
            measured(step + 1)
            if run.save_if_due(step + 1):
                mark("saving")
    except TrainingDiverged as error:
        error.so_far = result
        raise
    return result


def trained_weights(model: nn.Module) -> int:
    """How many weights are trained, wherever they are."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return sum(int(getattr(p, "ds_numel", p.numel())) for p in trained)


class _Run:
    """What a loop keeps about itself: checkpoints, and whether it has diverged."""

    def __init__(
        self,
        engine: Engine,
        plan: FineTuning,
        streams: Streams | None,
        folder: CheckpointFolder | None,
    ) -> None:
        self.engine = engine
        self.plan = plan
        self.streams = streams
        self.folder = folder
        self.result = FineTuned()
        self.last_saved: int | None = None
        self.saved_time = time.monotonic()
        self.cost = _STATE_BYTES * trained_weights(engine.model) / _WRITTEN_A_SECOND

    def begin(self) -> tuple[FineTuned, int]:
        progress = self.engine.resume(self.folder) if self.folder is not None else None
        if progress is None:
            return self.result, 0
        self.result = FineTuned.from_curves(progress.curves)
        self.last_saved = progress.step
        if self.streams is not None:
            self.streams.restore(progress.positions)
        return self.result, progress.step

    def watch(self, step: int, loss: float, norm: float, parts: Sequence[Any]) -> None:
        """Stop at, or note, what cannot be used."""
        reason = divergence(loss, self.plan.highest_loss)
        first = self.result.losses[0] if self.result.losses else loss
        growth = self.plan.highest_growth
        if not reason and growth is not None and loss > growth * first:
            reason = f"has a loss of {loss:.4g}, more than {growth:g} times the first ({first:.4g})"
        if not reason and not math.isfinite(norm):
            reason = f"has a gradient that is not finite (norm {norm})"
        if not reason:
            return
        if self.plan.diverged == STOP:
            ids = [name for part in parts for name in getattr(part, "item_ids", ())]
            raise TrainingDiverged(step, ids, self.last_saved, reason)
        if self.result.diverged_at is None:
            self.result.diverged_at = (step, reason)

    def save_if_due(self, step: int) -> bool:
        if self.folder is None:
            return False
        every = self.plan.save_every
        seconds = self.plan.save_seconds
        patience = seconds and max(seconds, _COST_TIMES * self.cost)
        late = time.monotonic() - self.saved_time >= patience
        due = bool(every and step % every == 0) or self.engine.any_process(late)
        if due:
            self.save(step, self._positions())
        return due

    def save(self, step: int, positions: dict[str, Any]) -> None:
        assert self.folder is not None
        begun = time.monotonic()
        self.engine.save(self.folder, Progress(step, positions, self.result.curves()))
        self.last_saved, self.saved_time = step, time.monotonic()
        self.cost = self.saved_time - begun

    def saved_if_stopped(self, step: int) -> _SavedIfStopped:
        return _SavedIfStopped(self, step, self._positions(), random_state())

    def _positions(self) -> dict[str, Any]:
        return self.streams.positions() if self.streams is not None else {}


@dataclass
class _SavedIfStopped:
    """Until the update begins nothing but positions and generators has moved: save the step before.

    Alone only: several processes are not stopped at the same point, and saving is done together.
    """

    run: _Run
    step: int
    positions: dict[str, Any]
    random: dict[str, Any]

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Save if the process is told to stop (an exception that is no ``Exception``)."""
        stopping = kind is not None and not issubclass(kind, Exception)
        run = self.run
        if stopping and run.folder is not None and run.engine.world_size == 1:
            if run.last_saved == self.step:
                return
            run.engine.zero_gradient()
            set_random_state(self.random)
            run.save(self.step, self.positions)
