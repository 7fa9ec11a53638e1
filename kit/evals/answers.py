"""A model answers requests of several turns, each with the conversation so far before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kit.evals.judge_prompts import Request
from kit.evals.judges import Answered, conversation_ids, stop_ids, text_of
from kit.lm.backend import Backend

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def answer(
    backend: Backend,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    *,
    max_new_tokens: int,
) -> list[Answered]:
    """Greedy answers to every turn of every request, in the order given.

    Args:
        backend: Of the model.
        tokenizer: Of the model, with a chat template.
        requests: Of one turn or more.
        max_new_tokens: Of an answer.
    """
    stop = stop_ids(tokenizer)
    answers: list[list[str]] = [[] for _ in requests]
    for turn in range(max((len(request.turns) for request in requests), default=0)):
        open_ = [n for n, request in enumerate(requests) if turn < len(request.turns)]
        prompts = [conversation_ids(tokenizer, _so_far(requests[n], answers[n])) for n in open_]
        wrote = backend.generate(prompts, max_new_tokens=max_new_tokens, stop_ids=stop)
        for n, generation in zip(open_, wrote, strict=True):
            answers[n].append(text_of(tokenizer, generation.ids))
    return [Answered(r, tuple(given)) for r, given in zip(requests, answers, strict=True)]


def _so_far(request: Request, answers: Sequence[str]) -> list[tuple[str, str]]:
    turns: list[tuple[str, str]] = []
    for number, text in enumerate(request.turns[: len(answers) + 1]):
        turns.append(("user", text))
        if number < len(answers):
            turns.append(("assistant", answers[number]))
    return turns
