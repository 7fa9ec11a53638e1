"""The training loop of checkpoint transfer, on any engine."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from kit.methods.checkpoint_transfer.recipe import Recipe
from kit.methods.checkpoint_transfer.targets import ForgetTargets, RetainReference
from kit.train.engine import Engine
from kit.train.loop import FineTuning, finetune
from kit.train.schedules import LINEAR, Schedule
from kit.train.streams import Streams

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kit.train.checkpoints import CheckpointFolder

DIVERGED_TIMES = 10.0
"""A loss of this many times the first step's has diverged (reference page, section 8, item 13)."""


@dataclass(frozen=True)
class _Part:
    """One of the two terms of a micro-batch, or some rows of it; each has its own backward pass.

    The gradient is the same as that of the sum, and only one part's activations are held.

    Attributes:
        kind: ``forget`` or ``retain``.
        micro: The micro-batch.
        weight: Of the term in the step's loss.
        examples: Of the micro-batch, those of this part.
        share: Of the micro-batch's tokens; terms are means over tokens.
    """

    kind: str
    micro: MicroBatch
    weight: float
    examples: tuple[int, ...]
    share: float

    @property
    def item_ids(self) -> tuple[str, ...]:
        """For the message of a run that diverged."""
        return tuple(map(str, self.examples))


@dataclass
class UnlearnRun:
    """What a run measured.

    Attributes:
        remove: Remove loss of every micro-batch of this process, without coefficient.
        retain: Retain loss of every micro-batch of this process; 0 where its coefficient is 0 and
            it was not computed, as the log has it.
        numbers: Number k of each of these micro-batches.
        gradient_norms: Before clipping, of every optimizer step.
        diverged_at: First optimizer step whose loss or gradient is not finite, or whose loss is
            beyond :data:`DIVERGED_TIMES` the first step's.
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
    folder: CheckpointFolder | None = None,
    save_every: int = 0,
    on_step: Callable[[int], None] | None = None,
    rows: int | None = None,
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
        folder: Of checkpoints, to write and to go on from; ``None`` saves nothing.
        save_every: Optimizer steps between two checkpoints.
        on_step: Called with the optimizer steps done.
        rows: Most texts in a forward pass; bounds memory and changes no loss but by rounding and
            the draws of dropout. All texts of a micro-batch without.

    Raises:
        ValueError: Pairs, targets, reference or optimizer that do not fit the recipe.
        TrainingDiverged: The loss left all bounds and the recipe says stop.
    """
    _check(engine, recipe, pairs, targets, reference)
    steps = batches(recipe, seed)
    notes = _Notes()
    losses = _Losses(recipe, pairs, targets, reference)

    def mine(step: int) -> list[MicroBatch]:
        return steps[step][engine.rank :: engine.world_size]

    def stepped(done: int, _loss: float) -> None:
        losses.move_to(notes, mine(done - 1))
        if on_step is not None:
            on_step(done)

    plan = FineTuning(
        len(steps),
        Schedule(LINEAR, recipe.warmup),
        recipe.clip,
        highest_loss=math.inf,
        highest_growth=DIVERGED_TIMES,
        diverged=recipe.on_divergence,
        save_every=save_every,
    )
    trained = finetune(
        engine,
        losses,
        lambda step: _parts(mine(step), recipe, len(steps[step]), pairs, rows),
        plan,
        streams=notes,
        folder=folder,
        on_step=stepped,
    )
    return UnlearnRun(
        remove=notes.remove,
        retain=notes.retain,
        numbers=notes.numbers,
        gradient_norms=trained.norms,
        diverged_at=None if trained.diverged_at is None else trained.diverged_at[0],
        finite=all(bool(p.isfinite().all()) for p in engine.model.parameters() if p.requires_grad),
    )


class _Notes(Streams):
    """Losses by micro-batch, saved and restored with the positions of a training."""

    def __init__(self) -> None:
        super().__init__()
        self.remove: list[float] = []
        self.retain: list[float] = []
        self.numbers: list[int] = []

    def positions(self) -> dict[str, Any]:
        """Copies: the lists grow before a checkpoint of the step before is written."""
        return {name: list(values) for name, values in self._lists()}

    def restore(self, positions: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's."""
        for name, values in self._lists():
            values[:] = positions[name]

    def _lists(self) -> list[tuple[str, list[Any]]]:
        return [("remove", self.remove), ("retain", self.retain), ("numbers", self.numbers)]


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
        self._noted: list[tuple[_Part, Tensor]] = []

    def __call__(self, model: nn.Module, part: _Part) -> Tensor:
        """The part's share of the step's loss."""
        value = self._remove(model, part) if part.kind == "forget" else self._retain(model, part)
        value = value * part.share
        self._noted.append((part, value.detach()))
        return value * part.weight

    def move_to(self, run: _Notes, mine: list[MicroBatch]) -> None:
        """Put the step's values into the notes; waits for the device once a step."""
        sums: dict[tuple[str, MicroBatch], float] = defaultdict(float)
        values = torch.stack([value for _, value in self._noted]).tolist()
        for (part, _), value in zip(self._noted, values, strict=True):
            sums[part.kind, part.micro] += value
        self._noted.clear()
        for micro in mine:
            run.numbers.append(micro.number)
            run.remove.append(sums["forget", micro])
            run.retain.append(sums["retain", micro])

    def _remove(self, model: Any, part: _Part) -> Tensor:
        ids, mask = self._pairs.inputs("forget", part.examples)
        aims = self._targets.rows(self._pairs, part.examples)
        return remove_loss(block_outputs(model, ids, mask, self._targets.blocks), aims, mask)

    def _retain(self, model: Any, part: _Part) -> Tensor:
        examples = part.examples
        ids, mask = self._pairs.inputs("retain", examples)
        kind = self._recipe.retain_loss
        reference = cast("RetainReference", self._reference)
        if kind == "hidden-states":
            before = reference.states(ids, mask, self._targets.blocks)
            return hidden_retain(
                before, block_outputs(model, ids, mask, self._targets.blocks), mask
            )
        aims = reference.logits(self._pairs, examples) if kind == "kl" else None
        padded: dict[str, Tensor] = {}
        if mask is not None:
            padded = {"attention_mask": mask, "position_ids": positions(mask)}
        logits = model(input_ids=ids, use_cache=False, **padded).logits
        if aims is None:
            return cross_entropy_retain(ids, logits, mask)
        return kl_retain(aims, logits, mask)


def _parts(
    mine: list[MicroBatch], recipe: Recipe, of_step: int, pairs: Pairs, rows: int | None
) -> list[_Part]:
    """The terms to compute, forget before retain: the last reaches every trained weight.

    A term whose coefficient is 0 is left out.
    """
    parts: list[_Part] = []
    for micro in mine:
        now = coefficients(
            micro.number,
            retain=recipe.retain_coef,
            remove=recipe.remove_coef,
            ramp=recipe.steps.ramp,
            schedule=recipe.coefficient_schedule,
        )
        if now.remove > 0:
            parts += _slices("forget", micro, now.remove / of_step, pairs.forget, 0, rows)
        if now.retain > 0:
            # The first token of a text is not predicted.
            unpredicted = int(recipe.retain_loss == "cross-entropy")
            retain = now.retain / of_step
            parts += _slices("retain", micro, retain, pairs.retain, unpredicted, rows)
    return parts


def _slices(
    kind: str,
    micro: MicroBatch,
    weight: float,
    texts: Sequence[Sequence[int]],
    uncounted: int,
    rows: int | None,
) -> Iterator[_Part]:
    """A term in parts of at most ``rows`` texts, each with its share of the tokens that count."""
    most = rows or len(micro.examples)
    counts = {example: len(texts[example]) - uncounted for example in micro.examples}
    for start in range(0, len(micro.examples), most):
        examples = micro.examples[start : start + most]
        mine, all_ = sum(counts[example] for example in examples), sum(counts.values())
        # Where nothing counts at all, the loss says so.
        share = mine / all_ if all_ else 1.0
        if share > 0:
            yield _Part(kind, micro, weight, examples, share)


def _check(
    engine: Engine,
    recipe: Recipe,
    pairs: Pairs,
    targets: ForgetTargets,
    reference: RetainReference | None,
) -> None:
    rate = engine.optimizer.spec.learning_rate
    if rate != recipe.learning_rate:
        raise ValueError(f"an optimizer at {rate:g} for a recipe of {recipe.learning_rate:g}")
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
