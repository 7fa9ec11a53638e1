"""The common course of full DefensiveTokens training and of tiny-adapt.

Items -> schedule -> (labels for the scheduled samples) -> examples -> prefix training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.lm.chat import ChatFormat
from kit.lm.model import vocabulary_rows
from kit.methods.defensive_tokens import struq
from kit.methods.defensive_tokens.attack_texts import AttackTexts
from kit.methods.defensive_tokens.attacks import AttackStyle
from kit.methods.defensive_tokens.examples import Encoding, encode_items
from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.prefix_training.loss import mean_loss
from kit.methods.defensive_tokens.prefix_training.state import PrefixState
from kit.methods.defensive_tokens.prefix_training.tuning import PrefixRun, train_prefix
from kit.methods.defensive_tokens.samples import Sample
from kit.methods.defensive_tokens.schedule import FROZEN_STREAM, Schedule, make_schedule
from kit.methods.defensive_tokens.self_label import NO_TURN, SelfLabel
from kit.methods.defensive_tokens.struq import TrainingItem

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kit.train.batching import Example


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a prefix, apart from model, data and initial vectors.

    Attributes:
        mixture: One of :data:`kit.methods.defensive_tokens.struq.MIXTURES`.
        encoding: Layout and label tokens.
        training: Optimizer settings.
        empty_data: Data turn of clean samples without input when they are labelled.
        max_label_tokens: Limit of a self-label.
        seed: Of the mixture; the order of consumption uses the same.
    """

    mixture: str
    encoding: Encoding
    training: PrefixTraining
    empty_data: str = NO_TURN
    max_label_tokens: int = 512
    seed: int = 42


@dataclass(frozen=True)
class Plan:
    """What a run will consume.

    Attributes:
        items: The whole mixture.
        schedule: Which items, in which order.
        samples: Sample id -> sample, of everything that is consumed or held out: label exactly
            these.
        heldout: Items that no step consumes, of samples that none does: for choosing a checkpoint.
    """

    items: tuple[TrainingItem, ...]
    schedule: Schedule
    samples: Mapping[str, Sample]
    heldout: tuple[int, ...] = ()


def plan_run(
    samples: Sequence[Sample],
    texts: AttackTexts,
    style: AttackStyle,
    recipe: Recipe,
    *,
    control_tokens: Sequence[str] = (),
) -> Plan:
    """Build the recipe's mixture and decide what is consumed; needs no model."""
    return plan_mixture(
        samples,
        texts,
        style,
        mixture=recipe.mixture,
        steps=recipe.training.steps,
        batch=recipe.training.batch,
        seed=recipe.seed,
        control_tokens=control_tokens,
    )


def plan_mixture(
    samples: Sequence[Sample],
    texts: AttackTexts,
    style: AttackStyle,
    *,
    mixture: str,
    steps: int,
    batch: int,
    seed: int,
    heldout: int = 0,
    order: str = FROZEN_STREAM,
    references: Mapping[str, str] | None = None,
    control_tokens: Sequence[str] = (),
) -> Plan:
    """Build a mixture and decide what ``steps`` x ``batch`` consume; one seed for both.

    ``order`` is one of :data:`kit.methods.defensive_tokens.schedule.ORDERS`; ``references`` and
    ``control_tokens`` are those of :func:`kit.methods.defensive_tokens.struq.build`.

    Raises:
        ValueError: Sample ids that are not unique, or no ``heldout`` items are left over.
    """
    by_id = {sample.id: sample for sample in samples}
    if len(by_id) != len(samples):
        raise ValueError("sample ids are not unique: labels are keyed by them")
    items = struq.build(
        mixture,
        samples,
        texts,
        style,
        seed=seed,
        references=references,
        control_tokens=control_tokens,
    )
    schedule = make_schedule(len(items), steps=steps, batch=batch, seed=seed, order=order)
    kept = _held_out(items, schedule, heldout, seed=seed, order=order)
    needed = dict.fromkeys(items[i].sample_id for i in [*schedule.consumed(), *kept])
    used = {sample_id: by_id[sample_id] for sample_id in needed}
    return Plan(tuple(items), schedule, used, kept)


def _held_out(
    items: Sequence[TrainingItem], schedule: Schedule, count: int, *, seed: int, order: str
) -> tuple[int, ...]:
    """The items that more steps would consume next; the schedule itself stays what it is."""
    if not count:
        return ()
    more = schedule.steps + -(-count // schedule.batch)
    longer = make_schedule(len(items), steps=more, batch=schedule.batch, seed=seed, order=order)
    kept = longer.order[len(schedule.order) :][:count]
    seen = {items[i].sample_id for i in schedule.order}
    if len(set(kept)) < count or any(items[i].sample_id in seen for i in kept):
        raise ValueError(
            f"{count} items cannot be held out: {schedule.steps} steps of {schedule.batch} leave "
            f"fewer of the {len(items)}"
        )
    return kept


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    plan: Plan,
    labels: Mapping[str, SelfLabel],
    recipe: Recipe,
    state: PrefixState,
    *,
    on_checkpoint: Callable[[PrefixState], None] | None = None,
    on_step: Callable[[int, float], None] | None = None,
    on_masked: Callable[[list[str]], None] | None = None,
) -> PrefixRun:
    """Train the prefix of ``state`` on a plan.

    Args:
        model: Frozen.
        tokenizer: Of the model.
        chat_format: The prompts' format.
        plan: From :func:`plan_run` with the same recipe.
        labels: Of ``plan.samples``.
        recipe: Settings.
        state: ``prefix_state.start(initial)``, or a checkpoint's state to go on from.
        on_checkpoint: See :func:`kit.methods.defensive_tokens.prefix_training.tuning.train_prefix`.
        on_step: See there.
        on_masked: Called before the first step with the ids of the items whose prompt leaves no
            room for a label, so that they train nothing.
    """
    examples = _encoded(
        plan.schedule.consumed(),
        model,
        tokenizer,
        chat_format,
        plan,
        labels,
        recipe.encoding,
        n=state.prefix.shape[0],
    )
    if on_masked is not None:
        on_masked([example.id for example in examples.values() if not example.labels])
    return train_prefix(
        model,
        state,
        lambda step: [examples[i] for i in plan.schedule.step(step)],
        recipe.training,
        pad_id=chat_format.pad_id(tokenizer),
        on_checkpoint=on_checkpoint,
        on_step=on_step,
    )


def heldout_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    plan: Plan,
    labels: Mapping[str, SelfLabel],
    recipe: Recipe,
    prefixes: Mapping[int, Tensor],
) -> dict[int, float]:
    """Loss of every checkpoint on the items that the training did not see; nothing is trained.

    Args:
        model: The frozen model of the training.
        tokenizer: Of the model.
        chat_format: The prompts' format.
        plan: With held-out items.
        labels: Of ``plan.samples``.
        recipe: Settings of the training.
        prefixes: Step -> prefix [n, d].

    Returns:
        Step -> mean loss in nats a label token, over all label tokens of the held-out items.
    """
    n = next(iter(prefixes.values())).shape[0]
    examples = _encoded(
        plan.heldout, model, tokenizer, chat_format, plan, labels, recipe.encoding, n=n
    )
    pad = chat_format.pad_id(tokenizer)
    return {
        step: mean_loss(model, prefix, list(examples.values()), recipe.training, pad_id=pad)
        for step, prefix in prefixes.items()
    }


def _encoded(
    indices: Sequence[int],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    plan: Plan,
    labels: Mapping[str, SelfLabel],
    encoding: Encoding,
    *,
    n: int,
) -> dict[int, Example]:
    encoded = encode_items(
        [plan.items[i] for i in indices],
        plan.samples,
        labels,
        tokenizer,
        chat_format,
        encoding,
        n=n,
        vocabulary_size=vocabulary_rows(model),
    )
    return dict(zip(indices, encoded, strict=True))
