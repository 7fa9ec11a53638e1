"""The training loop of checkpoint transfer, on any engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch

from kit.lm.hidden import block_outputs
from kit.lm.padding import positions
from kit.methods.checkpoint_transfer.counting import coefficients
from kit.methods.checkpoint_transfer.losses import (
    cross_entropy_retain,
    hidden_retain,
    kl_retain,
    remove_loss,
)
from kit.methods.checkpoint_transfer.pairs import MicroBatch, Pairs, batches
from kit.methods.checkpoint_transfer.recipe import STOP, Recipe
from kit.methods.checkpoint_transfer.targets import ForgetTargets, RetainReference
from kit.train.engine import Engine, Progress
from kit.train.errors import TrainingDiverged
from kit.train.schedules import LINEAR, Schedule

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kit.train.checkpoints import CheckpointFolder

DIVERGED_TIMES = 10.0
"""A remove loss of this many times its start has diverged (reference page, section 8, item 13)."""


@dataclass(frozen=True)
class _Part:
    """One of the two terms of a micro-batch; each has its own backward pass.

    The gradient is the same as that of the sum, and only one term's activations are held.
    """

    kind: str
    micro: MicroBatch
    weight: float


@dataclass
class UnlearnRun:
    """What a run measured.

    Attributes:
        remove: Remove loss of every micro-batch of this process, without coefficient.
        retain: Retain loss of every micro-batch of this process; 0 where its coefficient is 0 and
            it was not computed, as the log has it.
        numbers: Number k of each of these micro-batches.
        gradient_norms: Before clipping, of every optimizer step.
        diverged_at: First optimizer step whose remove loss is not finite or beyond
            :data:`DIVERGED_TIMES` its start.
        finite: Whether the trained weights are finite at the end; if not, nothing can be evaluated.
    """

    remove: list[float] = field(default_factory=list)
    retain: list[float] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    diverged_at: int | None = None
    finite: bool = True

    def logged(self, recipe: Recipe) -> tuple[float, float]:
        """Remove and retain loss as the published code logs them: of a single micro-batch."""
        at = self.numbers.index(recipe.steps.last_logged)
        return self.remove[at], self.retain[at]

    def last_step(self, recipe: Recipe) -> tuple[float, float]:
        """Mean remove and retain loss over the last optimizer step's micro-batches."""
        first = recipe.steps.micro_batches - recipe.steps.accumulation
        last = [at for at, number in enumerate(self.numbers) if number >= first]
        return (
            sum(self.remove[at] for at in last) / len(last),
            sum(self.retain[at] for at in last) / len(last),
        )


def unlearn(
    engine: Engine,
    recipe: Recipe,
    pairs: Pairs,
    targets: ForgetTargets,
    reference: RetainReference | None,
    *,
    seed: int,
    checkpoints: CheckpointFolder | None = None,
    checkpoint_every: int = 0,
    on_step: Callable[[int], None] | None = None,
) -> UnlearnRun:
    """Pull the model's states on forget text to the targets, and keep its outputs on retain text.

    Args:
        engine: Holds the model (:func:`kit.methods.checkpoint_transfer.student.make_student`).
        recipe: Everything that decides the run.
        pairs: As many as the recipe's ``examples``.
        targets: Of the same recipe.
        reference: Needed where the retain loss compares with the model before.
        seed: Of the order of the pairs; dropout draws from torch's generator, which is the
            caller's to seed.
        checkpoints: Where to write and to go on from, if at all.
        checkpoint_every: Optimizer steps between two checkpoints.
        on_step: Called after each optimizer step with their number so far.

    Raises:
        ValueError: Pairs, targets or reference that do not fit the recipe.
        TrainingDiverged: The remove loss left all bounds and the recipe says stop.
    """
    _check(engine, recipe, pairs, targets, reference)
    plan = batches(recipe, seed)
    schedule = Schedule(LINEAR, recipe.warmup)
    resumed = None if checkpoints is None else engine.resume(checkpoints)
    progress = resumed or Progress()
    run = UnlearnRun(**progress.curves) if progress.curves else UnlearnRun()  # type: ignore[arg-type]
    run.diverged_at = progress.positions.get("diverged_at")
    losses = _Losses(recipe, pairs, targets, reference)
    for step in range(progress.step, len(plan)):
        mine = plan[step][engine.rank :: engine.world_size]
        engine.accumulate(losses, _parts(mine, recipe, len(plan[step])))
        run.gradient_norms.append(engine.clip(recipe.clip))
        engine.step(schedule.rate(step, peak=recipe.learning_rate, steps=len(plan)))
        losses.move_to(run, mine)
        _watch(run, recipe, step, mine)
        progress.step = step + 1
        if checkpoints is not None and checkpoint_every and progress.step % checkpoint_every == 0:
            progress.curves = {name: getattr(run, name) for name in _CURVES}
            progress.positions = {"diverged_at": run.diverged_at}
            engine.save(checkpoints, progress)
        if on_step is not None:
            on_step(progress.step)
    trained = (p for p in engine.model.parameters() if p.requires_grad)
    run.finite = all(bool(p.isfinite().all()) for p in trained)
    return run


_CURVES = ("remove", "retain", "numbers", "gradient_norms")


class _Losses:
    """The loss function of both parts, which notes what it computes."""

    def __init__(
        self,
        recipe: Recipe,
        pairs: Pairs,
        targets: ForgetTargets,
        reference: RetainReference | None,
    ) -> None:
        self._recipe, self._pairs = recipe, pairs
        self._targets, self._reference = targets, reference
        self._noted: list[tuple[str, int, Tensor]] = []

    def __call__(self, model: nn.Module, part: _Part) -> Tensor:
        """The part's share of the step's loss."""
        value = self._remove(model, part) if part.kind == "forget" else self._retain(model, part)
        self._noted.append((part.kind, part.micro.number, value.detach()))
        return value * part.weight

    def move_to(self, run: UnlearnRun, mine: list[MicroBatch]) -> None:
        """Put the step's values into the run; waits for the device once a step."""
        values = iter(torch.stack([value for _, _, value in self._noted]).tolist())
        noted = [(kind, next(values)) for kind, _, _ in self._noted]
        self._noted.clear()
        at = 0
        for micro in mine:
            run.numbers.append(micro.number)
            run.remove.append(noted[at][1] if noted[at][0] == "forget" else 0.0)
            at += noted[at][0] == "forget"
            computed = at < len(noted) and noted[at][0] == "retain"
            run.retain.append(noted[at][1] if computed else 0.0)
            at += computed

    def _remove(self, model: Any, part: _Part) -> Tensor:
        ids, mask = self._pairs.batch("forget", part.micro.examples)
        aims = self._targets.rows(self._pairs, part.micro.examples)
        return remove_loss(block_outputs(model, ids, mask, self._targets.blocks), aims, mask)

    def _retain(self, model: Any, part: _Part) -> Tensor:
        examples = part.micro.examples
        ids, mask = self._pairs.batch("retain", examples)
        kind = self._recipe.retain_loss
        reference = cast("RetainReference", self._reference)
        if kind == "hidden-states":
            before = reference.states(ids, mask, self._targets.blocks)
            return hidden_retain(
                before, block_outputs(model, ids, mask, self._targets.blocks), mask
            )
        aims = reference.logits(self._pairs, examples) if kind == "kl" else None
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=False
        ).logits
        if aims is None:
            return cross_entropy_retain(ids, logits, mask)
        return kl_retain(aims, logits, mask)


def _parts(mine: list[MicroBatch], recipe: Recipe, of_step: int) -> list[_Part]:
    """The terms to compute, forget before retain: the last reaches every trained weight.

    A term whose coefficient is 0 is left out.
    """
    parts = []
    for micro in mine:
        now = coefficients(
            micro.number,
            retain=recipe.retain_coef,
            remove=recipe.remove_coef,
            ramp=recipe.steps.ramp,
            schedule=recipe.coefficient_schedule,
        )
        if now.remove > 0:
            parts.append(_Part("forget", micro, now.remove / of_step))
        if now.retain > 0:
            parts.append(_Part("retain", micro, now.retain / of_step))
    return parts


def _watch(run: UnlearnRun, recipe: Recipe, step: int, mine: list[MicroBatch]) -> None:
    """Notice divergence, and stop if the recipe says so."""
    latest = run.remove[-len(mine) :]
    mean = sum(latest) / len(latest)
    start = sum(run.remove[: len(mine)]) / len(mine)
    if run.diverged_at is None and not (
        math.isfinite(mean) and mean <= DIVERGED_TIMES * max(start, torch.finfo(torch.float32).eps)
    ):
        run.diverged_at = step
    if run.diverged_at is not None and recipe.on_divergence == STOP:
        examples = [str(example) for micro in mine for example in micro.examples]
        reason = f"has a remove loss of {mean:.4g}; it began at {start:.4g}"
        raise TrainingDiverged(step, examples, None, reason)


def _check(
    engine: Engine,
    recipe: Recipe,
    pairs: Pairs,
    targets: ForgetTargets,
    reference: RetainReference | None,
) -> None:
    if len(pairs.forget) != recipe.examples:
        raise ValueError(f"{len(pairs.forget)} pairs for a recipe of {recipe.examples}")
    if targets.blocks != recipe.blocks:
        raise ValueError(f"targets of blocks {targets.blocks} for a recipe of {recipe.blocks}")
    if not recipe.all_reduce and engine.world_size > 1:
        raise ValueError("without gradient averaging only the first process counts: start one")
    compares = recipe.retain_coef > 0 and recipe.retain_loss != "cross-entropy"
    if compares and reference is None:
        raise ValueError(
            f"the retain loss {recipe.retain_loss!r} needs the model from before unlearning: a "
            "frozen copy, or for LoRA the model with its adapter off"
        )
    if compares and recipe.full_rank:
        trained = {p.data_ptr() for p in engine.model.parameters() if p.requires_grad}
        model = cast("RetainReference", reference).model
        if trained & {p.data_ptr() for p in model.parameters()}:
            raise ValueError("full-rank training needs a frozen reference with its own weights")
