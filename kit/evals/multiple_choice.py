"""Multiple choice by log-likelihood, scored as lm-evaluation-harness does.

An option's score is the summed log-probability of its tokens behind the prompt; the model picks the
option with the highest. ``acc`` and ``acc_norm`` of the harness are :func:`accuracy` with and
without ``normalised``, and ties go to the first option as there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kit.evals.proportion import Proportion

if TYPE_CHECKING:
    from kit.lm.backend import Backend

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DELIMITER = " "
"""Between prompt and option, ``target_delimiter`` of the harness."""


class Question(Protocol):
    """A question as text; the miniature worlds' questions are such."""

    @property
    def id(self) -> str:
        """Unique in its set."""

    @property
    def prompt(self) -> str:
        """What stands before an option."""

    @property
    def options(self) -> Sequence[str]:
        """At least two."""

    @property
    def answer(self) -> int:
        """Index of the right option."""


@dataclass(frozen=True)
class Item:
    """A question as tokens.

    Attributes:
        id: Unique in its set.
        prompt: Token ids before an option.
        options: Token ids of each option, none empty.
        characters: Length of each option's text, for ``acc_norm``.
        answer: Index of the right option.
    """

    id: str
    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    characters: tuple[int, ...]
    answer: int


@dataclass(frozen=True)
class Scored:
    """What a model makes of a question.

    Attributes:
        id: The question's.
        options: Token ids of each option.
        loglikelihoods: Of each option, nats.
        characters: Length of each option's text.
        answer: Index of the right option.
    """

    id: str
    options: tuple[tuple[int, ...], ...]
    loglikelihoods: tuple[float, ...]
    characters: tuple[int, ...]
    answer: int

    def chosen(self, *, normalised: bool = False) -> int:
        """Index of the option picked, by the sum or by the sum divided by characters."""
        scores = self.loglikelihoods
        if normalised:
            pairs = zip(self.loglikelihoods, self.characters, strict=True)
            scores = tuple(score / length for score, length in pairs)
        return scores.index(max(scores))

    def right(self, *, normalised: bool = False) -> bool:
        """Whether the right option is picked."""
        return self.chosen(normalised=normalised) == self.answer

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Softmax of the summed log-likelihoods: the options' shares among themselves."""
        highest = max(self.loglikelihoods)
        weights = [math.exp(score - highest) for score in self.loglikelihoods]
        return tuple(weight / sum(weights) for weight in weights)


def items_of(
    questions: Sequence[Question],
    encode: Callable[[str], Sequence[int]],
    *,
    delimiter: str = DELIMITER,
) -> list[Item]:
    """Tokenise questions as the harness does for causal models.

    Prompt and option are encoded together and divided where the prompt alone ends, so that a
    tokenizer which joins the space to the word is met as in running text.

    Args:
        questions: At least one, with ids of their own.
        encode: Text to token ids, with or without a begin token as the model wants it.
        delimiter: Between prompt and option. Spaces at the end of a prompt go to the option.

    Raises:
        ValueError: No questions, an id twice, fewer than two options, an answer that is none of
            them, an empty option, or an option that adds no token to the prompt.
    """
    ids = [question.id for question in questions]
    if not ids:
        raise ValueError("no questions to score")
    if len(set(ids)) != len(ids):
        raise ValueError(f"question {next(i for i in ids if ids.count(i) > 1)} is there twice")
    return [_item(question, encode, delimiter) for question in questions]


def _item(question: Question, encode: Callable[[str], Sequence[int]], delimiter: str) -> Item:
    where = f"question {question.id}"
    if len(question.options) < 2 or not 0 <= question.answer < len(question.options):
        raise ValueError(f"{where}: answer {question.answer} of {len(question.options)} options")
    if not all(question.options):
        raise ValueError(f"{where} has an empty option")
    prompt = question.prompt.rstrip()
    between = question.prompt[len(prompt) :] + delimiter
    begin = tuple(encode(prompt))
    if not begin:
        raise ValueError(f"{where} has an empty prompt")
    options = [tuple(encode(prompt + between + text))[len(begin) :] for text in question.options]
    if not all(options):
        raise ValueError(f"{where}: an option adds no token to the prompt")
    lengths = tuple(len(text) for text in question.options)
    return Item(question.id, begin, tuple(options), lengths, question.answer)


def score(backend: Backend, items: Sequence[Item]) -> list[Scored]:
    """Score all options of all items in one call; items keep their order.

    Raises:
        ValueError: A likelihood that is no number: a model whose weights are broken picks nothing.
    """
    pairs = [(item.prompt, option) for item in items for option in item.options]
    results = iter(backend.loglikelihoods(pairs))
    scored = []
    for item in items:
        totals = tuple(next(results).total for _ in item.options)
        if any(math.isnan(total) for total in totals):
            raise ValueError(f"question {item.id}: a likelihood is not a number")
        scored.append(Scored(item.id, item.options, totals, item.characters, item.answer))
    return scored


def is_cloze(name: str) -> bool:
    """Whether a set is picked by its options' texts, divided by their lengths, by its name."""
    return name.endswith("-cloze")


def accuracy(scored: Sequence[Scored], *, normalised: bool = False) -> Proportion:
    """Questions answered right."""
    return Proportion.of([question.right(normalised=normalised) for question in scored])


def mean_probability(scored: Sequence[Scored]) -> float:
    """Mean share of the right option among the options, 0 to 1.

    "Cloze correct prob" of the checkpoint-transfer log (reference page, section 4): a softmax over
    summed log-likelihoods that are not normalised by length.

    Raises:
        ValueError: Nothing scored.
    """
    if not scored:
        raise ValueError("a mean over no questions is undefined")
    return math.fsum(question.probabilities[question.answer] for question in scored) / len(scored)


def letters(scored: Sequence[Scored], *, normalised: bool = False) -> tuple[list[str], list[str]]:
    """Letters picked and right letters, for a label file beside the questions' ids."""
    picked = [LETTERS[question.chosen(normalised=normalised)] for question in scored]
    return picked, [LETTERS[question.answer] for question in scored]
