"""The outer loop: simulate an attack, learn from where it led, go back, and step.

Source: algorithm 1 and C.4 of the paper, [CODE] modules/training.py ``tar_training_loop``. Written
on :class:`kit.train.engine.Engine` alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from kit.methods.tar.adversaries import Adversary, draw_adversary
from kit.methods.tar.batches import Counted, CountedPairs, counted_batches, pair_batches
from kit.methods.tar.objectives import (
    check_reference,
    language_model_loss,
    preference_win_rate,
    retain_loss,
    tamper_resistance_loss,
)
from kit.methods.tar.records import OuterStep, TarRun
from kit.methods.tar.settings import AVERAGED, DPO, TarSettings
from kit.methods.tar.streams import HELD_OUT, RETAIN, adversary_stream
from kit.train import engine as engines
from kit.train.clock import Clock
from kit.train.errors import TrainingDiverged
from kit.train.optimizers import OptimizerSpec, ScheduleFreeAdamW, optimizer_spec

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from kit.train.checkpoints import CheckpointFolder
    from kit.train.engine import Engine
    from kit.train.streams import Streams

TAMPER = "tamper-resistance"
"""Name of the accumulator."""


def outer_spec(settings: TarSettings) -> OptimizerSpec:
    """The outer optimizer: schedule-free AdamW with its own warm-up and no decay."""
    return ScheduleFreeAdamW(
        learning_rate=settings.outer_learning_rate,
        weight_decay=0.0,
        warmup_steps=settings.outer_warmup,
    )


def inner_spec(settings: TarSettings, adversary: Adversary) -> OptimizerSpec:
    """The optimizer of a simulated attack, at a constant rate."""
    return optimizer_spec(
        adversary.optimizer,
        {
            "learning_rate": adversary.learning_rate,
            "weight_decay": settings.inner_weight_decay,
        },
    )


def saved_weights(settings: TarSettings) -> str:
    """Which weights a finished run is saved with, as the engine calls them."""
    return engines.AVERAGED if settings.saved_weights == AVERAGED else engines.TRAINING


@dataclass(frozen=True)
class Batching:
    """How global batches become micro-batches.

    Attributes:
        rows: Most rows in a forward pass.
        pad_id: Fills rows.
    """

    rows: int
    pad_id: int


@dataclass
class OuterLoop:
    """What an outer step works with.

    Attributes:
        engine: Model and outer optimizer.
        reference: The original model, frozen.
        settings: Everything that decides a number.
        streams: From ``streams.tar_streams``.
        batching: Micro-batches.
        seed: Of the adversaries that are drawn.
        snapshot_device: Where the weights wait for the attack's end; where they are if none.
        redraw: Gives an outer step's own items by stream; the streams named begin again with them.
        clock: Gets a mark after each part of an outer step.
    """

    engine: Engine
    reference: PreTrainedModel
    settings: TarSettings
    streams: Streams
    batching: Batching
    seed: int
    snapshot_device: str | None = None
    redraw: Callable[[int], Mapping[str, Sequence[Any]]] | None = None
    clock: Clock = field(default_factory=Clock)

    def renew(self, number: int) -> None:
        """Give the streams the items of an outer step, where each has its own."""
        if self.redraw is not None:
            for name, items in self.redraw(number).items():
                self.streams[name].renew(items)

    def step(self, number: int) -> OuterStep:
        """One outer step, up to but without the update of the weights.

        The engine's gradient is then lambda_retain x gradient of the retain loss at theta, plus the
        weighted tamper-resistance gradients at the attacked points, which count as gradients at
        theta: the displacement of the attack is held constant (first order).

        Raises:
            TrainingDiverged: A loss that cannot be used.
        """
        engine, settings, mark = self.engine, self.settings, self.clock.mark
        self.renew(number)
        attacks = []
        weighted = 0.0
        for task in range(settings.adversaries_a_step):
            adversary = draw_adversary(
                settings.adversaries,
                settings.adversary_learning_rates,
                inner_steps=settings.inner_steps,
                seed=self.seed,
                outer_step=number,
                task=task,
                optimizers=settings.inner_optimizers,
                switch=settings.switch,
            )
            start = engine.snapshot(self.snapshot_device)
            mark("snapshot")
            with engine.inner(inner_spec(settings, adversary)):
                inner, tamper, won = self.attack(adversary)
            engine.restore(start)
            mark("restoring")
            attacks.append(attack_record(adversary, inner, tamper, won))
            weights = settings.weights()
            weighted += sum(weights[s] * value for s, value in tamper.items())
        if weighted < settings.lowest_tamper_loss:
            engine.add_collected(TAMPER)
            engine.zero_gradient()
        retain = engine.accumulate(
            partial(_retain, self.reference, settings),
            self.examples(RETAIN),
            scale=settings.retain_scale,
        )
        retain_norm = engine.gradient_norm()
        mark("retain pass")
        if weighted >= settings.lowest_tamper_loss:
            engine.add_collected(TAMPER)
        return OuterStep(
            number=number,
            attacks=attacks,
            weighted_tamper_loss=weighted,
            retain_loss=float(retain),
            retain_gradient=retain_norm,
            gradient=engine.gradient_norm(),
        )

    def attack(self, adversary: Adversary) -> tuple[list[float], dict[int, float], float | None]:
        """K steps of a simulated attack; its tamper-resistance gradients are collected.

        The held-out batch is the same after every inner step (C.4).

        Returns:
            The adversary's loss before each inner step, the tamper-resistance loss after each step
            that gives a gradient, unweighted, and with DPO the share of held-out pairs whose
            preferred answer the attacked model prefers more than the initial model does.
        """
        engine, settings = self.engine, self.settings
        held_out = self.held_out()
        weights = settings.weights()
        inner: list[Tensor] = []
        tamper: dict[int, Tensor] = {}
        for step in range(settings.inner_steps):
            batch = self.examples(adversary_stream(adversary.data(step)))
            inner.append(engine.accumulate(_language_model, batch))
            engine.step()
            self.clock.mark("inner steps")
            if step in weights:
                tamper[step] = engine.accumulate(partial(_tamper, settings), held_out)
                engine.collect(TAMPER, weights[step])
                self.clock.mark("tamper-resistance passes")
        won = None
        if settings.objective == DPO:
            # A gradient of zero: the engine sums the shares of all processes, as of a loss.
            won = engine.accumulate(_won, held_out)
            engine.zero_gradient()
        # Read once: a number that is waited for after every step would keep a GPU idle.
        values = torch.stack([*inner, *tamper.values()]).tolist()
        losses = dict(zip(tamper, values[len(inner) :], strict=True))
        return values[: len(inner)], losses, None if won is None else float(won)

    def examples(self, stream: str) -> list[Counted]:
        """The next global batch of a stream."""
        return counted_batches(
            self.streams[stream].take(),
            self.engine,
            rows=self.batching.rows,
            pad_id=self.batching.pad_id,
            width=self.settings.width,
        )

    def held_out(self) -> Sequence[Counted | CountedPairs]:
        """The batch that a whole attack is judged on."""
        if self.settings.objective != DPO:
            return self.examples(HELD_OUT)
        return pair_batches(
            self.streams[HELD_OUT].take(),
            self.engine,
            rows=self.batching.rows,
            pad_id=self.batching.pad_id,
        )


def attack_record(
    adversary: Adversary, inner: list[float], tamper: dict[int, float], won: float | None
) -> dict[str, Any]:
    """An attack as JSON values; the share of pairs won where there are pairs."""
    made = {
        "adversary": adversary.type.name,
        "learning_rate": adversary.learning_rate,
        "optimizer": adversary.optimizer,
        "switch": adversary.switch,
        "losses": inner,
        "tamper": [[step, value] for step, value in tamper.items()],
    }
    return made if won is None else {**made, "won": won}


def train_tar(
    loop: OuterLoop,
    *,
    measure: Callable[[nn.Module, int], Mapping[str, Any]] | None = None,
    measure_at: Sequence[int] = (),
    folder: CheckpointFolder | None = None,
    save_every: int = 1,
    on_step: Callable[[OuterStep], None] | None = None,
) -> TarRun:
    """Run the outer loop to its end, from the start or from the newest checkpoint.

    Args:
        loop: What it works with.
        measure: Called with the model, ready for measuring with the weights that will be saved, and
            the number of outer steps done; returns JSON values.
        measure_at: Numbers of outer steps after which to measure; 0 is before the first.
        folder: Of checkpoints; none saves nothing.
        save_every: Outer steps between checkpoints; the end itself gets none, as the caller saves
            the model there.
        on_step: Called after every outer step.

    Raises:
        TrainingDiverged: A loss or gradient that cannot be used.
        ValueError: A reference model of another shape, a measuring point outside of the run.
    """
    engine, settings = loop.engine, loop.settings
    model: Any = engine.model
    check_reference(model, loop.reference)
    if save_every < 1 or not all(0 <= step <= settings.outer_steps for step in measure_at):
        raise ValueError(
            f"saving every {save_every} and measuring at {tuple(measure_at)} does not fit "
            f"{settings.outer_steps} outer steps"
        )
    run, start, saved = _begin(loop, folder)
    loop.clock.mark("starting")

    def measured(done: int) -> None:
        if measure is not None and done in measure_at and done not in dict(run.measured):
            with engine.evaluating(saved_weights(settings)) as evaluated:
                run.measured.append((done, dict(measure(evaluated, done))))

    measured(start)
    for number in range(start, settings.outer_steps):
        record = loop.step(number)
        _watch(record, saved)
        engine.step()
        loop.clock.mark("update")
        run.steps.append(record)
        if on_step is not None:
            on_step(record)
        done = number + 1
        measured(done)
        if folder is not None and done % save_every == 0:
            progress = engines.Progress(done, loop.streams.positions(), run.curves())
            engine.save(folder, progress)
            saved = done
            loop.clock.mark("saving")
    return run


def _begin(loop: OuterLoop, folder: CheckpointFolder | None) -> tuple[TarRun, int, int | None]:
    progress = loop.engine.resume(folder) if folder is not None else None
    if progress is None:
        return TarRun(), 0, None
    # Positions are kept between outer steps: they are those of the items of the step before.
    loop.renew(progress.step - 1)
    loop.streams.restore(progress.positions)
    return TarRun.from_curves(progress.curves), progress.step, progress.step


def _watch(record: OuterStep, saved: int | None) -> None:
    """Stop before an update that would spoil the weights."""
    values = {"retain loss": record.retain_loss, "gradient norm": record.gradient}
    for attack in record.attacks:
        values |= {f"inner loss {i}": value for i, value in enumerate(attack["losses"])}
        values |= {f"tamper-resistance loss {s}": value for s, value in attack["tamper"]}
    for name, value in values.items():
        # A representation term has no natural size, and a negative loss may fall without a bound.
        if not math.isfinite(value):
            raise TrainingDiverged(
                record.number, (), saved, f"has a value that is not finite ({name}: {value})"
            )


def _language_model(model: Any, counted: Counted) -> Tensor:
    return language_model_loss(model, counted)


def _tamper(settings: TarSettings, model: Any, held_out: Counted | CountedPairs) -> Tensor:
    return tamper_resistance_loss(model, held_out, settings)


def _won(model: Any, held_out: Any) -> Tensor:
    return preference_win_rate(model, held_out)


def _retain(
    reference: PreTrainedModel, settings: TarSettings, model: Any, counted: Counted
) -> Tensor:
    return retain_loss(model, reference, counted, settings)
