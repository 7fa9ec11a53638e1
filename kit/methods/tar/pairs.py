"""Pairs of answers to a request, and what the initial model thinks of them.

A folder of data holds ``pairs/<name>.jsonl``, lines ``{id, prompt, chosen, rejected}`` of token
ids. Log-probabilities under the initial model are computed once, before a training begins ([CODE]
modules/objectives.py keeps them with the examples).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from kit.methods.tar.batches import PairExample, pair_batches
from kit.methods.tar.objectives import preference_margins, reference_log_probs
from kit.results.plain import read_json_lines
from kit.train.batching import Example, collate, forward_groups

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class StoredPair:
    """A request with both answers, as token ids.

    Attributes:
        id: Unique in its set.
        prompt: Up to where the model answers.
        chosen: The preferred answer: a refusal.
        rejected: The other.
    """

    id: str
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    def example(self, side: str) -> Example:
        """One answer with its prompt; labels on the answer only."""
        answer = self.chosen if side == "chosen" else self.rejected
        return Example(self.id, (*self.prompt, *answer), len(self.prompt))


def read_pairs(folder: Path, name: str) -> list[StoredPair]:
    """The pairs of a set.

    Raises:
        ValueError: No such set, an empty one, or two pairs of one id.
    """
    path = folder / "pairs" / f"{name}.jsonl"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.jsonl"))) or "none"
        raise ValueError(f"no {path.name} in {path.parent}; there: {known}")
    pairs = read_json_lines(path, StoredPair)
    if not pairs or len({pair.id for pair in pairs}) < len(pairs):
        raise ValueError(f"{path.name} has {len(pairs)} pairs of which some share an id, or none")
    return pairs


def with_reference(
    pairs: Sequence[StoredPair], reference: PreTrainedModel, *, rows: int, pad_id: int
) -> list[PairExample]:
    """The pairs with the summed log-probabilities of both answers under the initial model.

    Args:
        pairs: In any order.
        reference: The initial model, in evaluation mode.
        rows: Most answers in a forward pass.
        pad_id: Fills rows.
    """
    values: dict[str, list[float]] = {}
    for side in ("chosen", "rejected"):
        examples = [pair.example(side) for pair in pairs]
        log_probs = [0.0] * len(examples)
        for group in forward_groups([len(e.ids) for e in examples], rows):
            batch = collate([examples[i] for i in group], pad_id, reference.device)
            for i, value in zip(group, reference_log_probs(reference, batch).tolist(), strict=True):
                log_probs[i] = value
        values[side] = log_probs
    return [
        PairExample(pair.example("chosen"), pair.example("rejected"), chosen, rejected)
        for pair, chosen, rejected in zip(pairs, values["chosen"], values["rejected"], strict=True)
    ]


@torch.no_grad()
def all_margins(
    model: PreTrainedModel, pairs: Sequence[PairExample], *, rows: int, pad_id: int
) -> list[float]:
    """How much more the model prefers each chosen answer than the initial model does; nats.

    Args:
        model: In evaluation mode.
        pairs: With reference values.
        rows: Most pairs in a forward pass.
        pad_id: Fills rows.
    """
    made = pair_batches(pairs, _Alone(model.device), rows=rows, pad_id=pad_id)
    return [float(v) for part in made for v in preference_margins(model, part.pairs)]


@dataclass(frozen=True)
class _Alone:
    """A process that computes everything."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
