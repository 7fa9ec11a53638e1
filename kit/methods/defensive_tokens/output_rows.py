"""What tied embeddings do to a prefix that is put into the model's table.

The authors install their tokens as new rows of the table (DT, setup.py). Where input and output
embeddings are one matrix, such a row is scored as a word at every position, and its score grows
with its length: trained vectors are a hundred times longer than words. The kit keeps the vectors
outside the vocabulary (:mod:`kit.lm.prefix`), and vLLM, which has to lend them rows, bans their
ids. This module measures what is avoided by that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from kit.lm.forward import unlike_plain_head
from kit.lm.model import decoder, embedding_matrix, inner_model, is_tied
from kit.lm.padding import left_pad, positions
from kit.lm.prefix import embed
from kit.methods.defensive_tokens.attacks import with_input
from kit.methods.defensive_tokens.layouts import begin_id, insert_slots

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kit.lm.chat import ChatFormat
    from kit.methods.defensive_tokens.samples import Sample

ROWS = 32
"""Prompts computed at a time."""


def benign_prompts(
    tokenizer: PreTrainedTokenizerBase,
    chat: ChatFormat,
    layout: str,
    samples: Sequence[Sample],
    *,
    slots: int,
    vocabulary_size: int,
) -> list[list[int]]:
    """The unattacked prompts of the samples that have an input, with so many prefix slots."""
    begin = begin_id(chat, tokenizer)
    return [
        insert_slots(
            layout,
            chat.prompt_ids(tokenizer, sample.instruction, sample.input),
            n=slots,
            vocabulary_size=vocabulary_size,
            begin=begin,
        )
        for sample in with_input(samples)
    ]


def as_output_rows(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], prefix: Tensor, *, pad_id: int
) -> tuple[list[bool], list[float]]:
    """Score the prefix vectors as if they were further rows of the tied matrix.

    Args:
        model: With tied embeddings.
        prompts: Ids with prefix slots.
        prefix: [n, d]; it is rounded to the model's dtype, as in its table.
        pad_id: Any id of the vocabulary.

    Returns:
        For every prompt, of the first token of the answer: whether greedy decoding would take a
        prefix vector, and the probability of all of them together.

    Raises:
        ValueError: Input and output embeddings are two matrices, or the model's scores are not
            the matrix times the states.
    """
    unlike = unlike_plain_head(inner_model(model).config)
    if unlike or not is_tied(model):
        raise ValueError(
            "prefix vectors cannot be scored as output rows: "
            + (unlike or "input and output embeddings are two matrices")
        )
    matrix = embedding_matrix(model)
    rows = torch.cat([matrix, prefix.to(matrix.device, matrix.dtype)]).detach()
    wins: list[bool] = []
    shares: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(prompts), ROWS):
            ids, mask = left_pad(prompts[start : start + ROWS], pad_id, matrix.device)
            states = decoder(model)(
                inputs_embeds=embed(model, ids, prefix),
                attention_mask=mask,
                position_ids=positions(mask),
                use_cache=False,
            ).last_hidden_state[:, -1]
            scores = (states @ rows.T).float()
            wins += (scores.argmax(dim=1) >= len(matrix)).tolist()
            shares += scores.softmax(dim=1)[:, len(matrix) :].sum(dim=1).tolist()
    return wins, shares
