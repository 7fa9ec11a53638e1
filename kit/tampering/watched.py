"""What an attack is watched with, from a folder of data, and its trajectory as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.evals.multiple_choice import is_cloze
from kit.evals.sets import Watch, pad_id, question_items, text_examples
from kit.tampering.trajectory import Trajectory, every

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kit.train.batching import Example


@dataclass(frozen=True)
class FinishedAttack:
    """A finished attack, as a table step finds it.

    Attributes:
        instance: Its step instance.
        trajectory: Its file (:func:`record`).
        axes: Axis -> value.
    """

    instance: str
    trajectory: Path
    axes: Mapping[str, Any]


def attack_texts(
    data: Path, tokenizer: PreTrainedTokenizerBase, names: Sequence[str]
) -> Mapping[str, list[Example]]:
    """The attack's texts by the name of their set."""
    return {name: text_examples(data, [name], tokenizer) for name in names}


def watch(
    data: Path, tokenizer: PreTrainedTokenizerBase, settings: Any
) -> tuple[tuple[int, ...], Watch]:
    """After how many steps to measure, and what."""
    points = every(settings.steps, settings.measure_every)
    middle = min(points, key=lambda step: abs(step - settings.steps / 2))
    texts = {"trained": text_examples(data, settings.data[-1:], tokenizer)}
    named = settings.questions
    sets = named if isinstance(named, Mapping) else {name: name for name in named}
    return points, Watch(
        question_items(data, sets, tokenizer),
        texts,
        pad_id(tokenizer),
        frozenset(settings.seldom),
        frozenset({0, middle, settings.steps}),
        frozenset(name for name, stored in sets.items() if is_cloze(stored)),
    )


def record(trajectory: Trajectory, watched: Watch) -> dict[str, Any]:
    """A trajectory as JSON values, with what the picks of its points refer to."""
    return {
        "points": [[step, values] for step, values in trajectory.points],
        "losses": trajectory.losses,
        "data": trajectory.data,
        "diverged": list(trajectory.diverged or ()),
        "questions": watched.answers(),
    }
