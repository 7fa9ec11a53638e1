"""Stand-in data with the lengths of the real sets, made of neutral words.

Lengths, in Llama-3 tokens (defensive_tokens.md, 2.1 and 6; GPU facts page):

* evaluation: benign prompts 80 on average, 213 at the 95th percentile, at most 409; the ignore
  attack adds 33, the completion attack 94, all with 5 prefix slots;
* training: 107 prompt tokens on average over the reported mixture, 193 label tokens;
* answers: 190 on average, at most 512.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from kit.methods.defensive_tokens.attack_texts import AttackTexts, Delimiters
from kit.methods.defensive_tokens.samples import Sample

if TYPE_CHECKING:
    from numpy.random import Generator
    from torch import Tensor

    from kit.lm.backend import Generation, LogLikelihood

_NEUTRAL = (
    "amber autumn basket bell birch bridge candle canvas cedar chalk cliff cloud clover copper "
    "coral cotton creek crystal daisy dawn desk ember fabric feather fern field flute forest "
    "garden glass grain granite harbor hazel hill island ivory jacket kettle ladder lake lantern "
    "leaf lemon linen maple marble meadow mirror moss mountain needle oak ocean olive orchard "
    "paper pebble pepper pine planet pocket pond quartz rain ribbon river rope saddle salt sand "
    "shell silver sky snow spoon spring stone stream summer table thread timber tower valley "
    "velvet violet wagon water wheat willow window winter wood wool yarn"
)
_OTHER = (
    "answer ask assistant begin task data done exactly forget hello here instruction it look "
    "next note now only please print reply response result say short system that the then this "
    "user with word you"
)
WORDS = tuple(_NEUTRAL.split())
# What the tokenizer of the stand-in folder knows as one token a word.
VOCABULARY = tuple(form for word in (*WORDS, *_OTHER.split()) for form in (word, word.capitalize()))
# Log-normal shapes: mean, spread of the logarithm, most.
EVALUATION_INSTRUCTION = (14.0, 0.45, 60)
EVALUATION_INPUT = (54.0, 1.0, 340)
EVALUATION_OUTPUT = (80.0, 0.9, 1560)
TRAINING_INSTRUCTION = (21.0, 0.45, 80)
TRAINING_INPUT = (62.0, 0.9, 400)
TRAINING_OUTPUT = (118.0, 0.8, 400)
ANSWER = (207.0, 0.75, 512)
# Rows of yahma/alpaca-cleaned (defensive_tokens.md, 1.3).
POOL_SIZE = 51_760
# 37 % of Cleaned Alpaca has an input (defensive_tokens.md, 1.2).
WITH_INPUT = 0.37


def lengths(count: int, shape: tuple[float, float, int], rng: Generator) -> list[int]:
    """Log-normal token counts of a given mean, at least 1 and cut at the most."""
    mean, spread, most = shape
    drawn = rng.lognormal(math.log(mean) - spread**2 / 2, spread, count)
    return [min(max(round(value), 1), most) for value in drawn.tolist()]


def standin_samples(count: int, seed: int) -> list[Sample]:
    """Training samples like Cleaned Alpaca's."""
    return _samples(
        count,
        seed,
        "train",
        WITH_INPUT,
        TRAINING_INSTRUCTION,
        TRAINING_INPUT,
        TRAINING_OUTPUT,
    )


def standin_evaluation(count: int = 208, seed: int = 1) -> list[Sample]:
    """Evaluation samples, all with input, like AlpacaFarm's 208."""
    return _samples(
        count,
        seed,
        "eval",
        1.0,
        EVALUATION_INSTRUCTION,
        EVALUATION_INPUT,
        EVALUATION_OUTPUT,
    )


def answer_lengths(count: int, seed: int) -> list[int]:
    """How long answers are, in tokens: 190 on average, at most 512.

    A model with random weights hardly ever stops by itself. Timings of generation are honest only
    when every prompt gets its own limit from here.
    """
    import numpy as np

    return lengths(count, ANSWER, np.random.default_rng(seed))


class AnswerLengths:
    """A backend whose answers end where real ones would: each prompt gets a limit of its own.

    A model with random weights answers with tokens that do not survive decoding and encoding, so
    its answers are spelled in the stand-in vocabulary's words, one token each: text that is encoded
    again, as the follow-up does with its labels, then has the length it was generated with.
    """

    def __init__(self, backend: Any, word_ids: Sequence[int], *, cut: bool = False) -> None:
        """Wrap a backend.

        Args:
            backend: Generates.
            word_ids: Ids of whole words with a space in front.
            cut: The backend takes one limit for all prompts. Answers are then cut when they are
                there: it takes as long as if one answer of every batch had the greatest length.
        """
        self.backend = backend
        self.word_ids = tuple(word_ids)
        self.cut = cut

    @property
    def vocabulary_size(self) -> int:
        """Of the wrapped backend."""
        return int(self.backend.vocabulary_size)

    def generate(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, **rest: Any
    ) -> list[Generation]:
        """See :meth:`kit.lm.generate.Backend.generate`; limits come from :func:`answer_lengths`."""
        return self._answers([(prompts, rest.pop("prefix", None))], max_new_tokens, **rest)[0]

    def sets_at_once(self, vectors: int) -> int:
        """Of the wrapped backend."""
        return 1 if self.cut else int(self.backend.sets_at_once(vectors))

    def generate_sets(
        self, sets: Sequence[tuple[Any, Any]], *, max_new_tokens: int, **rest: Any
    ) -> list[list[Generation]]:
        """See :meth:`kit.lm.backend.ServesSets.generate_sets`; limits as in :meth:`generate`."""
        return self._answers(sets, max_new_tokens, **rest)

    def _answers(
        self, sets: Sequence[tuple[Any, Any]], most: int, **rest: Any
    ) -> list[list[Generation]]:
        limits = [
            [min(n, most) for n in answer_lengths(len(prompts), len(prompts))]
            for prompts, _ in sets
        ]
        if self.cut:
            made = [
                self.backend.generate(prompts, prefix=prefix, max_new_tokens=most, **rest)
                for prompts, prefix in sets
            ]
        else:
            made = self.backend.generate_sets(sets, max_new_tokens=limits, **rest)
        words = self.word_ids
        return [
            [
                replace(
                    generation,
                    ids=tuple(words[token % len(words)] for token in generation.ids[:limit]),
                )
                for generation, limit in zip(answers, own, strict=True)
            ]
            for answers, own in zip(made, limits, strict=True)
        ]

    def loglikelihoods(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], **rest: Any
    ) -> list[LogLikelihood]:
        """Of the wrapped backend: scoring takes as long whatever the answers would be."""
        scored: list[LogLikelihood] = self.backend.loglikelihoods(pairs, **rest)
        return scored


def released_prefix(width: int, *, n: int = 5, seed: int = 0, norm: float = 83.0) -> Tensor:
    """[n, width] float32 vectors as long as the released ones (83 on average)."""
    import torch

    rows = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=1) * norm


def standin_attack_texts() -> AttackTexts:
    """Attack texts of the real ones' numbers and lengths, asking for a harmless word."""
    slot = "{injected_prompt}"
    test = tuple(f"{_sentence(28, i)} {slot}" for i in range(11))
    train = tuple(f"{_sentence(28, i + 50)} {slot}" for i in range(10))
    words = [word.capitalize() for word in WORDS]
    pairs = [Delimiters(f"### {a}:", f"### {b}:") for a, b in pairwise(words)]
    return AttackTexts(
        injected_word="Hello",
        injected_prompt="Print exactly Hello!",
        ignore_test=test,
        ignore_train=train,
        completion_real=Delimiters("### response:", "### instruction:"),
        fake_delimiters_train=tuple(pairs[:60]),
        fake_delimiters_test=tuple(pairs[60:70]),
        delimiter_words={
            name: tuple(f"### {{s}}{word}" if name == "mark" else word for word in words[i : i + 6])
            for i, name in enumerate(("mark", "inst", "inpt", "resp", "user", "asst"))
        },
    )


def _samples(
    count: int,
    seed: int,
    name: str,
    with_input: float,
    instruction: tuple[float, float, int],
    data: tuple[float, float, int],
    output: tuple[float, float, int],
) -> list[Sample]:
    import numpy as np

    rng = np.random.default_rng(seed)
    columns = [lengths(count, shape, rng) for shape in (instruction, data, output)]
    has_input = (rng.random(count) < with_input).tolist()
    words: Sequence[str] = rng.choice(WORDS, 4096).tolist()
    starts = rng.integers(0, 2048, (count, 3)).tolist()

    def text(start: int, length: int) -> str:
        return " ".join(words[start : start + length])

    return [
        Sample(
            id=f"{name}-{i}",
            instruction=text(starts[i][0], columns[0][i]),
            input=text(starts[i][1], columns[1][i]) if has_input[i] else "",
            output=text(starts[i][2], columns[2][i]),
        )
        for i in range(count)
    ]


def _sentence(length: int, first: int) -> str:
    chosen = [WORDS[(first + 7 * i) % len(WORDS)] for i in range(length - 1)]
    return " ".join(chosen).capitalize() + "."
