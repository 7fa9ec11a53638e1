"""An attack from plain settings and a folder of data, and its trajectory as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.evals.sets import Watch, pad_id, question_items, text_examples
from kit.tampering.attack import Attack, phases
from kit.tampering.trajectory import Trajectory, every
from kit.train.engine import Precision
from kit.train.lora import Lora
from kit.train.optimizers import optimizer_spec
from kit.train.schedules import Schedule

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kit.train.batching import Example


def attack_of(settings: Any) -> Attack:
    """The attack that the settings describe.

    Args:
        settings: Parameters of the step kind ``tampering/attack``.

    Raises:
        ValueError: Settings that cannot be run.
    """
    free = settings.optimizer == "schedule-free-adamw"
    values = {"learning_rate": settings.learning_rate, "weight_decay": settings.weight_decay}
    return Attack(
        name=settings.optimizer,
        optimizer=optimizer_spec(
            settings.optimizer, values | ({"warmup_steps": settings.warmup} if free else {})
        ),
        steps=settings.steps,
        batch=settings.batch,
        phases=phases(*settings.data, first=settings.first_share),
        schedule=Schedule() if free else Schedule(settings.schedule, settings.warmup),
        length=settings.length,
        lora=Lora(settings.lora_rank, settings.lora_alpha) if settings.lora_rank else None,
        clip=settings.clip,
        seed=settings.seed,
        precision=Precision(settings.compute, settings.masters),
    )


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
