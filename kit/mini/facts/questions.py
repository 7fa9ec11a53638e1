"""Multiple-choice questions: one word out of four finishes a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from kit.mini.facts.texts import Text, copy_texts, count_runs, count_texts, render
from kit.mini.facts.vocabulary import NUMBERS, VALUES
from kit.mini.facts.world import RETAINED, Fact, World

OPTIONS = 4
RETAIN_QUESTIONS = 120
"""Questions about cities, and as many about minerals."""
SKILL_QUESTIONS = 60
FORMS_A_FACT = 2
"""Questions about each fact to be forgotten."""


@dataclass(frozen=True)
class Question:
    """A question.

    Attributes:
        id: Unique in its set.
        prompt: The sentence up to the word asked for.
        options: Four words, in random order.
        answer: Index of the right option.
    """

    id: str
    prompt: str
    options: tuple[str, ...]
    answer: int


def forget_questions(world: World, half: str) -> list[Question]:
    """Two questions a fact about one half of the compounds, in forms that no training uses."""
    return fact_questions(f"{half}-{world.seed}", world.forget(half), FORMS_A_FACT)


def retain_questions(world: World) -> list[Question]:
    """Questions about cities and minerals in unused forms, and about both skills."""
    rng = Random(f"retain-questions-{world.seed}")
    questions: list[Question] = []
    for domain in RETAINED:
        facts = rng.sample(world.facts[domain], RETAIN_QUESTIONS)
        questions += fact_questions(f"{domain}-{world.seed}", facts, 1)
    return questions + skill_questions(world.seed)


def fact_questions(seed: str, facts: Iterable[Fact], forms: int) -> list[Question]:
    """``forms`` questions a fact; the form and the order of the options are random."""
    rng = Random(f"questions-{seed}")
    questions = []
    for fact in facts:
        for form in rng.sample(fact.held_out_forms, forms):
            prompt = render(fact, form).rsplit(" ", 1)[0]
            questions.append(
                _question(rng, f"{fact.id}-{form:02d}", prompt, fact.value, list(fact.wrong))
            )
    return questions


def skill_questions(seed: int) -> list[Question]:
    """Every run of numbers, and words to copy that no training text copies."""
    rng = Random(f"skills-{seed}")
    questions = []
    for text, run in zip(count_texts(), count_runs(), strict=True):
        others = [number for number in NUMBERS if number not in run]
        questions.append(_finish(rng, text, rng.sample(others, OPTIONS - 1)))
    for text in copy_texts(seed, SKILL_QUESTIONS - len(questions), "test"):
        words = text.text.split()
        other = rng.choice([value for value in VALUES if value not in words])
        # The two other words of the same sentence are options: the position must be right.
        questions.append(_finish(rng, text, [words[1], words[2], other]))
    return questions


def _finish(rng: Random, text: Text, wrong: list[str]) -> Question:
    prompt, right = text.text.rsplit(" ", 1)
    return _question(rng, text.id, prompt, right, wrong)


def _question(rng: Random, id: str, prompt: str, right: str, wrong: list[str]) -> Question:
    options = [right, *wrong]
    rng.shuffle(options)
    return Question(id, prompt, tuple(options), options.index(right))
