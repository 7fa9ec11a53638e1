"""Evaluate one prefix: every attack, benign refusals and, where it makes sense, accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from kit.evals.accuracy import exact_labels
from kit.evals.generation_stats import GenerationStats, generation_stats
from kit.evals.injection import any_over_variants, injection_labels, max_over_variants
from kit.evals.proportion import Proportion
from kit.evals.refusal import RULES as REFUSAL_RULES
from kit.evals.refusal import Refusal, refusals
from kit.lm.backend import Backend, Generation, ServesSets
from kit.lm.chat import ChatFormat
from kit.methods.defensive_tokens.attack_texts import AttackTexts
from kit.methods.defensive_tokens.attacks import (
    PAPER_ATTACKS,
    AttackStyle,
    attack_samples,
    remove_control_tokens,
    with_input,
)
from kit.methods.defensive_tokens.layouts import begin_id, insert_slots
from kit.methods.defensive_tokens.prompt_defences import PromptDefence
from kit.methods.defensive_tokens.samples import Sample

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

BENIGN = "benign"


@dataclass(frozen=True)
class Response:
    """One prompt and what came back.

    Attributes:
        sample_id: Of the sample.
        data: The data turn, attack included.
        prompt_start: The first prompt ids, eight or with a long prefix three more than its slots:
            where begin token and prefix really stand (P1).
        text: The decoded response.
        tokens: Its length in tokens, stop token not counted.
        finish_reason: ``stop`` or ``length``.
    """

    sample_id: str
    data: str
    prompt_start: tuple[int, ...]
    text: str
    tokens: int
    finish_reason: str


@dataclass(frozen=True)
class Condition:
    """All responses of one attack, or of the benign prompts.

    Attributes:
        name: Attack name, or ``benign``.
        responses: One a sample, in sample order.
        injected: Success by the begins-with rule; empty for benign.
        injected_anywhere: Success by the in-response rule; empty for benign.
        refused: Refusal rule -> verdicts; benign only.
        correct: Exact match with the reference answer; empty where references prove nothing.
        stats: Lengths, empty and truncated shares.
    """

    name: str
    responses: tuple[Response, ...]
    stats: GenerationStats
    injected: tuple[bool, ...] = ()
    injected_anywhere: tuple[bool, ...] = ()
    refused: Mapping[str, tuple[Refusal, ...]] = field(default_factory=dict)
    correct: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """One prefix, evaluated.

    Attributes:
        attacks: Attack name -> condition, in the order asked for.
        benign: The unattacked prompts.
    """

    attacks: Mapping[str, Condition]
    benign: Condition

    def labels(self, names: Sequence[str] | None = None) -> dict[str, tuple[bool, ...]]:
        """Attack -> begins-with labels, of some or of all attacks."""
        chosen = self.attacks if names is None else names
        return {name: self.attacks[name].injected for name in chosen}

    def max_asr(self, names: Sequence[str] | None = None) -> tuple[str, Proportion]:
        """The strongest attack and its success rate (DTP reports this maximum)."""
        return max_over_variants(self.labels(names))

    def any_asr(self, names: Sequence[str] | None = None) -> Proportion:
        """Share of samples on which any attack succeeded."""
        return Proportion.of(any_over_variants(self.labels(names)))


Prompted = tuple["Tensor | None", PromptDefence]
"""A prefix [n, d], or ``None`` for the undefended model in the same harness, and the sentences of a
defence around the data; ``Response.data`` stays what the attacker wrote."""


def evaluate_prefixes(
    backend: Backend,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    layout: str,
    asked: Sequence[Prompted],
    samples: Sequence[Sample],
    texts: AttackTexts,
    style: AttackStyle,
    *,
    attacks: Sequence[str] = PAPER_ATTACKS,
    max_new_tokens: int = 512,
    seed: int = 42,
    control_tokens: Sequence[str] = (),
    references_are_right: bool = False,
) -> Iterator[Evaluation]:
    """Evaluate prefixes one after another, or as many side by side as the backend serves.

    What is asked twice (a training's start is the prefix that was carried over) is generated once.

    Args:
        backend: Generates.
        tokenizer: Of the model.
        chat_format: The prompts' format.
        layout: Where the prefix stands.
        asked: What is evaluated.
        samples: Those without input are left out.
        texts: The attack strings.
        style: How they are joined.
        attacks: Names of attacks.
        max_new_tokens: The documents use 512.
        seed: Of the choice of sentences.
        control_tokens: Removed from the clean data.
        references_are_right: Whether ``Sample.output`` is the one right answer (miniature worlds).

    Yields:
        The evaluation of each of ``asked``, in its order.

    Raises:
        ValueError: No eligible sample, an unknown attack or layout, a repeated attack.
    """
    if len(set(attacks)) != len(attacks) or not attacks:
        raise ValueError(f"attacks must be named, once each: {list(attacks)}")
    eligible = with_input(samples)
    data: dict[str, list[str]] = {
        name: [
            attacked.data
            for attacked in attack_samples(
                name, eligible, texts, style, seed=seed, control_tokens=control_tokens
            )
        ]
        for name in attacks
    }
    data[BENIGN] = [remove_control_tokens(sample.input, control_tokens) for sample in eligible]
    begin = begin_id(chat_format, tokenizer)

    @cache
    def bodies(defence: PromptDefence) -> list[list[int]]:
        """Prompts without prefix: encoded once for all prefixes."""
        return [
            chat_format.prompt_ids(
                tokenizer, defence.instruction(sample), defence.data(sample, text)
            )
            for turns in data.values()
            for sample, text in zip(eligible, turns, strict=True)
        ]

    def prompts_of(prefix: Tensor | None, defence: PromptDefence) -> list[list[int]]:
        rows = backend.vocabulary_size
        return [
            insert_slots(layout, body, n=_slots(prefix), vocabulary_size=rows, begin=begin)
            for body in bodies(defence)
        ]

    references = [sample.output for sample in eligible] if references_are_right else None
    stop = chat_format.stop_ids(tokenizer)
    several = max([1, *(_slots(prefix) for prefix, _ in asked)])
    size = backend.sets_at_once(several) if isinstance(backend, ServesSets) else 1
    first = _first_alike(asked)
    distinct = [number for number, other in enumerate(first) if number == other]
    ready: dict[int, Evaluation] = {}
    following = 0
    for start in range(0, len(distinct), size):
        numbers = distinct[start : start + size]
        sets = [
            (prompts_of(prefix, defence), prefix)
            for prefix, defence in (asked[number] for number in numbers)
        ]
        if isinstance(backend, ServesSets):
            made = backend.generate_sets(sets, max_new_tokens=max_new_tokens, stop_ids=stop)
        else:
            ((prompts, prefix),) = sets
            made = [
                backend.generate(
                    prompts, prefix=prefix, max_new_tokens=max_new_tokens, stop_ids=stop
                )
            ]
        for number, (prompts, prefix), generations in zip(numbers, sets, made, strict=True):
            conditions: dict[str, Condition] = {}
            for condition, (name, turns) in enumerate(data.items()):
                begins = condition * len(eligible)
                part = slice(begins, begins + len(eligible))
                responses = _responses(
                    eligible, turns, prompts[part], generations[part], tokenizer, _slots(prefix)
                )
                conditions[name] = _score(name, responses, texts.injected_word, references)
            ready[number] = Evaluation(
                {name: conditions[name] for name in attacks}, conditions[BENIGN]
            )
            while following < len(asked) and first[following] in ready:
                yield ready[first[following]]
                following += 1


def _first_alike(asked: Sequence[Prompted]) -> list[int]:
    """For each of ``asked`` the number of the first that is equal to it, bit for bit."""

    def alike(left: Prompted, right: Prompted) -> bool:
        (prefix, defence), (other, against) = left, right
        if prefix is None or other is None:
            return prefix is other and defence == against
        same = (prefix.shape, prefix.dtype, defence) == (other.shape, other.dtype, against)
        return same and bool((prefix == other).all())

    return [
        next(number for number, other in enumerate(asked) if alike(own, other)) for own in asked
    ]


def _slots(prefix: Tensor | None) -> int:
    return 0 if prefix is None else prefix.shape[0]


def _responses(
    samples: Sequence[Sample],
    turns: Sequence[str],
    prompts: Sequence[Sequence[int]],
    generations: Sequence[Generation],
    tokenizer: PreTrainedTokenizerBase,
    slots: int,
) -> tuple[Response, ...]:
    return tuple(
        Response(
            sample_id=sample.id,
            data=turn,
            prompt_start=tuple(prompt[: max(8, slots + 3)]),
            text=str(tokenizer.decode(list(generation.ids), skip_special_tokens=True)),
            tokens=len(generation.ids),
            finish_reason=generation.finish_reason,
        )
        for sample, turn, prompt, generation in zip(
            samples, turns, prompts, generations, strict=True
        )
    )


def _score(
    name: str, responses: tuple[Response, ...], word: str, references: Sequence[str] | None
) -> Condition:
    texts = [response.text for response in responses]
    benign = name == BENIGN
    return Condition(
        name=name,
        responses=responses,
        stats=generation_stats(
            texts, [r.tokens for r in responses], [r.finish_reason for r in responses]
        ),
        injected=() if benign else tuple(injection_labels(texts, word)),
        injected_anywhere=() if benign else tuple(injection_labels(texts, word, "in-response")),
        refused={rule: tuple(refusals(texts, rule)) for rule in REFUSAL_RULES} if benign else {},
        correct=() if references is None else tuple(exact_labels(texts, references)),
    )
