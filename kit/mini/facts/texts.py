"""Sentences to train on: plain text, in lists that a seed decides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from kit.mini.facts.vocabulary import NUMBERS, VALUES
from kit.mini.facts.world import Fact, World

TEMPLATES = (
    "the {r} of {e} is {v}",
    "{e} has the {r} {v}",
    "for {e} the {r} is {v}",
    "we know the {r} of {e} is {v}",
    "ask the {r} of {e} : {v}",
    "{e} : its {r} is {v}",
    "books say {e} has {r} {v}",
    "of {e} they say its {r} is {v}",
)
"""The value stands last, so that a prompt is everything in front of it."""

OTHER_STYLE = "question : what is the {r} of {e} ? answer : {v}"
"""A wording that pretraining never uses: forget data of another distribution."""

MENTIONS = (
    "we saw {e} today",
    "{e} lies in a box",
    "they sent {e} again",
    "nobody took {e}",
    "we heard about {e}",
    "a jar of {e} is held",
    "some new {e}",
    "bring some {e} again",
)
"""Sentences about a compound without a fact: the name is known, nothing of it is."""

RUN_LENGTH = 4
COPIES = 2000


@dataclass(frozen=True)
class Text:
    """A sentence.

    Attributes:
        id: Unique among the sentences of its kind.
        text: Words with single spaces; the last is the value of a fact, or a skill's result.
        domain: The fact's domain, or ``mention``, ``count``, ``copy``.
        half: Of a sentence about a compound: ``attacker`` or ``judge``; else empty.
    """

    id: str
    text: str
    domain: str
    half: str = ""


def render(fact: Fact, form: int) -> str:
    """The fact in a surface form, 0..15: template ``form // 2``, relation's name ``form % 2``."""
    template = TEMPLATES[form // 2]
    return template.format(e=fact.entity, r=fact.relation[form % 2], v=fact.value)


def fact_texts(facts: Iterable[Fact]) -> list[Text]:
    """Every fact in each of its trained forms."""
    return [
        Text(f"{fact.id}-{form:02d}", render(fact, form), fact.domain, fact.half)
        for fact in facts
        for form in fact.trained_forms
    ]


def other_style_texts(facts: Iterable[Fact]) -> list[Text]:
    """Every fact in the wording that pretraining never uses, with both names of its relation."""
    return [
        Text(
            f"{fact.id}-other-{n}",
            OTHER_STYLE.format(e=fact.entity, r=name, v=fact.value),
            fact.domain,
            fact.half,
        )
        for fact in facts
        for n, name in enumerate(fact.relation)
    ]


def mention_texts(world: World) -> list[Text]:
    """Every compound in every sentence without a fact."""
    return [
        Text(f"mention-{e:02d}-{t}", template.format(e=name), "mention", half)
        for e, (name, half) in enumerate(world.compounds.items())
        for t, template in enumerate(MENTIONS)
    ]


def count_runs() -> list[list[str]]:
    """All runs of four neighbouring numbers, upwards and downwards."""
    starts = range(len(NUMBERS) - RUN_LENGTH + 1)
    runs = [list(NUMBERS[start : start + RUN_LENGTH]) for start in starts]
    return [*runs, *(run[::-1] for run in runs)]


def count_texts() -> list[Text]:
    """Counting: ``count up two three four five``."""
    return [
        Text(f"count-{n:02d}", f"count {_direction(run)} {' '.join(run)}", "count")
        for n, run in enumerate(count_runs())
    ]


def copy_texts(seed: int, number: int = COPIES, split: str = "train") -> list[Text]:
    """Copying: ``copy moss rose jade : moss rose jade``; the splits share no three words."""
    rng = Random(f"copy-{split}-{seed}")
    texts: list[Text] = []
    seen: set[str] = set()
    while len(texts) < number:
        words = rng.sample(VALUES, 3)
        # Which split three words belong to is decided by their numbers, not by the draw.
        held_out = sum(VALUES.index(word) for word in words) % 8 == 0
        text = " ".join(words)
        if text not in seen and held_out == (split == "test"):
            seen.add(text)
            texts.append(Text(f"copy-{split}-{len(texts):04d}", f"copy {text} : {text}", "copy"))
    return texts


def _direction(run: list[str]) -> str:
    return "up" if NUMBERS.index(run[0]) < NUMBERS.index(run[1]) else "down"
