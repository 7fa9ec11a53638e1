"""Training by a sum of terms on several data streams: random mapping and the baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.methods.tar.baselines.recipe import Objective, Term
from kit.methods.tar.batches import Counted, counted_batches
from kit.train.loop import FineTuned, FineTuning, finetune

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kit.train.batching import Example
    from kit.train.checkpoints import CheckpointFolder
    from kit.train.engine import Engine
    from kit.train.streams import Streams


@dataclass(frozen=True)
class TermBatch:
    """A micro-batch of one term.

    Attributes:
        term: Whose loss it is.
        batch: What the loss receives.
        item_ids: For messages.
    """

    term: Term
    batch: Counted | tuple[Counted, ...]
    item_ids: tuple[str, ...]


def term_loss(model: nn.Module, part: TermBatch) -> Tensor:
    """The share of a term's micro-batch. All shares of a step add up to its loss."""
    loss: Callable[[Any, Any], Tensor] = part.term.loss
    return loss(model, part.batch)


def train_safeguard(
    engine: Engine,
    objective: Objective | Sequence[Term],
    streams: Streams,
    plan: FineTuning,
    *,
    rows: int,
    pad_id: int,
    width: int | None = None,
    measure: Callable[[nn.Module, int], Mapping[str, Any]] | None = None,
    folder: CheckpointFolder | None = None,
) -> FineTuned:
    """Train a model by the sum of terms; each stream is drawn from once a step.

    Args:
        engine: Model and optimizer.
        objective: Terms, or terms by step.
        streams: By the names that the terms use; items are examples or tuples of them.
        plan: Steps, schedule, measuring, checkpoints.
        rows: Most rows in a forward pass.
        pad_id: Fills rows.
        width: Columns of every batch; the longest example's if not given.
        measure: As in :func:`kit.train.loop.finetune`.
        folder: Of checkpoints.

    Raises:
        ValueError: A term on data that no stream has.
    """
    terms_of: Objective = objective if callable(objective) else lambda _step: objective

    def batches(step: int) -> list[TermBatch]:
        terms = terms_of(step)
        names = sorted({name for term in terms for name in term.data})
        drawn = {name: _columns(streams[name].take()) for name in names}
        made = []
        for term in terms:
            sides = [side for name in term.data for side in drawn[name]]
            made += _parts(term, sides, engine, rows=rows, pad_id=pad_id, width=width)
        return made

    return finetune(
        engine, term_loss, batches, plan, measure=measure, streams=streams, folder=folder
    )


def _columns(items: Sequence[Any]) -> list[list[Example]]:
    """Examples of a stream: one list, or one for each side of its pairs."""
    if isinstance(items[0], tuple):
        return [list(side) for side in zip(*items, strict=True)]
    return [list(items)]


def _parts(
    term: Term,
    sides: Sequence[Sequence[Example]],
    engine: Engine,
    *,
    rows: int,
    pad_id: int,
    width: int | None,
) -> list[TermBatch]:
    columns = width or max(len(example.ids) for side in sides for example in side)
    made = [
        counted_batches(side, engine, rows=rows, pad_id=pad_id, width=columns) for side in sides
    ]
    if len(made) == 1:
        return [TermBatch(term, counted, counted.item_ids) for counted in made[0]]
    return [TermBatch(term, pair, pair[0].item_ids) for pair in zip(*made, strict=True)]
