"""What a model answers, as plain values for a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kit.evals.multiple_choice import Question, items_of, letters, score
from kit.methods.checkpoint_transfer.affine import AffineMap
from kit.methods.checkpoint_transfer.oracle_patch import oracle_patch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kit.lm.backend import Backend

Answers = dict[str, Any]
"""``items``, ``right`` (0 or 1), ``picked`` and ``answers`` (letters), a list each."""


def answer(
    backend: Backend, questions: Sequence[Question], encode: Callable[[str], Sequence[int]]
) -> Answers:
    """Score a set of questions by log-likelihood."""
    scored = score(backend, items_of(questions, encode))
    picked, right = letters(scored)
    return {
        "items": [one.id for one in scored],
        "right": [int(one.right()) for one in scored],
        "picked": picked,
        "answers": right,
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
    """
    found = {}
    for block in sorted(block for block in maps if block >= 0):
        with oracle_patch(student, teacher, maps[block], block):
            found[block] = answer(backend, questions, encode)
    return found
