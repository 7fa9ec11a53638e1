"""What a model answers, as plain values for a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from kit.evals.multiple_choice import (
    Question,
    Scored,
    items_of,
    letters,
    mean_probability,
    score,
)
from kit.methods.checkpoint_transfer.affine import AffineMap
from kit.methods.checkpoint_transfer.oracle_patch import oracle_patch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kit.lm.backend import Backend

QuestionT = TypeVar("QuestionT", bound=Question)
Answers = dict[str, Any]
"""``items``, ``right`` (0 or 1), ``picked`` and ``answers`` (letters), a list each, and the mean
``probability`` of the right option."""
NOT_FINITE = "not-finite"
"""Key of the answers of a model whose weights are not finite: nothing can be asked of it."""


def answer(
    backend: Backend,
    questions: Sequence[Question],
    encode: Callable[[str], Sequence[int]],
    *,
    normalised: bool = False,
) -> Answers:
    """Score a set of questions by the kit's own scorer; see :func:`as_answers`."""
    return as_answers(score(backend, items_of(questions, encode)), normalised=normalised)


def share_of(questions: Sequence[QuestionT], share: float) -> list[QuestionT]:
    """The first questions of a set; at least one."""
    return list(questions[: max(1, round(len(questions) * share))])


def as_answers(scored: Sequence[Scored], *, normalised: bool = False) -> Answers:
    """What was scored, by either scorer, as plain values.

    Args:
        scored: Of :func:`kit.evals.multiple_choice.score` or
            :func:`kit.evals.harness.harness_score`.
        normalised: Pick by the sum divided by characters (the cloze test's ``acc_norm``).
    """
    picked, right = letters(scored, normalised=normalised)
    return {
        "items": [question.id for question in scored],
        "right": [int(question.right(normalised=normalised)) for question in scored],
        "picked": picked,
        "answers": right,
        "probability": mean_probability(scored),
    }


def share(answers: Answers) -> float:
    """Share answered right."""
    return sum(answers["right"]) / len(answers["right"])


def patched_answers(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    maps: Mapping[int, AffineMap],
    backend: Backend,
    questions: Sequence[Question],
    encode: Callable[[str], Sequence[int]],
) -> dict[int, Answers]:
    """Block -> what the student answers when it computes on from the mapped teacher state there.

    Args:
        student: Behind ``backend``.
        teacher: The early checkpoint.
        maps: Block -> map. What enters block 0 is left out: nothing is pulled there.
        backend: Of the student.
        questions: To be forgotten.
        encode: Text to token ids.

    Raises:
        ValueError: No map of a block that can be patched.
    """
    if not any(block >= 0 for block in maps):
        raise ValueError("no affine map of a block to patch")
    answers = {}
    for block in sorted(block for block in maps if block >= 0):
        with oracle_patch(student, teacher, maps[block], block):
            answers[block] = answer(backend, questions, encode)
    return answers
