"""Pretraining examples as padded batches of token ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from kit.lm.chat import ChatFormat, Text
from kit.mini.chat import MINI
from kit.mini.injection.pretrain_data import Example, Mix, draw_example
from kit.mini.injection.tokenizer import quick_tokenizer

if TYPE_CHECKING:
    import torch

GROUP = 16
"""Batches that are drawn together and sorted by length, so that little padding is computed."""

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Token ids padded on the right.

    Attributes:
        ids: ``[batch, length]`` int64, prompt and answer.
        labels: ``[batch, length]`` int64; the id to be predicted *at* each position, that is
            shifted by one already, and ``IGNORED`` wherever the next token is not of the answer.
    """

    ids: torch.Tensor
    labels: torch.Tensor


def with_context(context: str) -> ChatFormat:
    """The mini format with context words between ``<s>`` and the instruction turn."""
    if not context:
        return MINI
    return replace(MINI, begin=(*MINI.begin, Text(context)))


def render(example: Example) -> tuple[list[int], list[int]]:
    """Ids of the prompt and ids of the answer, which ends with ``</s>``."""
    tokenizer = quick_tokenizer()
    chat_format = with_context(example.context)
    prompt = chat_format.prompt_ids(tokenizer, example.instruction, example.data)
    return prompt, chat_format.response_ids(tokenizer, example.answer)


def collate(rows: list[tuple[list[int], list[int]]]) -> Batch:
    """Pad (prompt, answer) rows to one batch."""
    import torch

    pad = MINI.pad_id(quick_tokenizer())
    length = max(len(prompt) + len(answer) for prompt, answer in rows) - 1
    ids = torch.full((len(rows), length), pad, dtype=torch.int64)
    labels = torch.full((len(rows), length), IGNORED, dtype=torch.int64)
    for row, (prompt, answer) in enumerate(rows):
        whole = torch.tensor(prompt + answer)
        # The last token is only ever predicted, never read.
        ids[row, : len(whole) - 1] = whole[:-1]
        labels[row, len(prompt) - 1 : len(whole) - 1] = torch.tensor(answer)
    return Batch(ids, labels)


def batches(seed: str, mix: Mix, *, size: int, steps: int) -> Iterator[Batch]:
    """``steps`` batches of ``size`` examples; rows of one batch have similar lengths."""
    rng = Random(seed)
    made = 0
    while made < steps:
        rows = [render(draw_example(rng, mix)) for _ in range(GROUP * size)]
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        order = list(range(GROUP))
        rng.shuffle(order)
        for index in order[: steps - made]:
            yield collate(rows[index * size : (index + 1) * size])
        made += GROUP
