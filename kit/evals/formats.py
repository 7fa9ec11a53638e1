"""Prompt formats of the published multiple-choice tasks.

WMDP and MMLU show the options under letters and score the letters; the cloze format shows no
option and scores their full texts (checkpoint-transfer reference page, section 4; the task files
``tasks/wmdp`` and ``tasks/mmlu/default`` of lm-evaluation-harness).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kit.evals.multiple_choice import DELIMITER, LETTERS, Question

BETWEEN_SHOTS = "\n\n"


@dataclass(frozen=True)
class Formatted:
    """A question in a format; see :class:`kit.evals.multiple_choice.Question`."""

    id: str
    prompt: str
    options: tuple[str, ...]
    answer: int


def lettered(question: Question, *, about: str = "") -> Formatted:
    """The question with its options under A, B, C, ..., to be answered with a letter.

    Args:
        question: With the bare question as its prompt.
        about: A subject, for the line that WMDP and MMLU open with; none without it.
    """
    letters = tuple(LETTERS[: len(question.options)])
    shown = [f"{letter}. {text}" for letter, text in zip(letters, question.options, strict=True)]
    prompt = "\n".join([question.prompt.strip(), *shown, "Answer:"])
    return Formatted(question.id, _opening(about) + prompt, letters, question.answer)


def cloze(question: Question) -> Formatted:
    """The question alone, to be answered with the text of an option."""
    prompt = f"Question: {question.prompt.strip()}\nAnswer:"
    return Formatted(question.id, prompt, tuple(question.options), question.answer)


def with_shots(question: Formatted, shots: Sequence[Formatted], *, about: str = "") -> Formatted:
    """The question behind others that are answered.

    Args:
        question: Formatted without an opening line.
        shots: Likewise; none of them the question itself.
        about: Subject of the opening line, which stands once, before the first shot.

    Raises:
        ValueError: The question is among its own shots.
    """
    if question.id in {shot.id for shot in shots}:
        raise ValueError(f"question {question.id} is among its own examples")
    answered = [shot.prompt + DELIMITER + shot.options[shot.answer] for shot in shots]
    prompt = _opening(about) + BETWEEN_SHOTS.join([*answered, question.prompt])
    return Formatted(question.id, prompt, question.options, question.answer)


def _opening(about: str) -> str:
    if not about:
        return ""
    return f"The following are multiple choice questions (with answers) about {about}.\n\n"
