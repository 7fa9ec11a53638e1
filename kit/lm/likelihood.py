"""Log-likelihoods of continuations for a batch, on plain transformers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from kit.lm.backend import LogLikelihood
from kit.lm.forward import last_scores
from kit.lm.model import embedding_matrix, vocabulary_rows
from kit.lm.padding import left_pad, positions
from kit.lm.prefix import embed

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Pair = tuple[Sequence[int], Sequence[int]]
ROWS_AT_A_TIME = 256
"""Scored positions whose softmax, in float32 at least, exists at once."""


def shared_inputs(pairs: Iterable[Pair]) -> dict[tuple[int, ...], list[int]]:
    """Input of the model -> numbers of the pairs that need it.

    The last token of a continuation is predicted and never read, so the four letters behind the
    same question are four pairs and a single input.
    """
    inputs: dict[tuple[int, ...], list[int]] = {}
    for number, (context, continuation) in enumerate(pairs):
        inputs.setdefault((*context, *continuation[:-1]), []).append(number)
    return inputs


def score_batch(
    model: PreTrainedModel,
    inputs: Sequence[tuple[int, ...]],
    continuations: Sequence[Sequence[Sequence[int]]],
    *,
    prefix: Tensor | None,
    pad_id: int,
) -> list[list[LogLikelihood]]:
    """Score the continuations that end each input, in a single forward pass.

    Padding stands on the left, so that all continuations end in the last column and only those
    columns pass through the output layer.

    Args:
        model: A causal language model in evaluation mode.
        inputs: Context and continuation without its last token.
        continuations: For each input the continuations to score.
        prefix: [n, d] vectors for slots, or ``None``.
        pad_id: Fills the batch; masked out.

    Returns:
        For each input the results, in the order of its continuations.
    """
    device = embedding_matrix(model).device
    ids, mask = left_pad(inputs, pad_id, device)
    count = max(len(tokens) for group in continuations for tokens in group)
    # Ids where there are no slots: what watches the model (a teacher beside it) can follow them.
    plain = prefix is None and int(ids.max()) < vocabulary_rows(model)
    read = {"input_ids": ids} if plain else {"inputs_embeds": embed(model, ids, prefix)}
    scores = last_scores(
        model,
        count,
        **read,
        attention_mask=None if bool(mask.all()) else mask,
        position_ids=positions(mask),
        use_cache=False,
    )
    flat = [
        (row, count - len(tokens) + step, token)
        for row, group in enumerate(continuations)
        for tokens in group
        for step, token in enumerate(tokens)
    ]
    values, greedy = _at(scores, torch.tensor(flat, device=device))
    return _collect(continuations, values, greedy)


def _at(scores: Tensor, where: Tensor) -> tuple[list[float], list[bool]]:
    """Log-probability of each (row, column, token), and whether the token scores highest."""
    values, greedy = [], []
    for rows, columns, tokens in (part.unbind(1) for part in torch.split(where, ROWS_AT_A_TIME)):
        picked = scores[rows, columns]
        picked = picked.to(torch.promote_types(picked.dtype, torch.float32))
        own = picked.gather(1, tokens[:, None])[:, 0]
        values.append(own - picked.logsumexp(dim=1))
        greedy.append(picked.argmax(dim=1) == tokens)
    return torch.cat(values).tolist(), torch.cat(greedy).tolist()


def _collect(
    continuations: Sequence[Sequence[Sequence[int]]], values: list[float], greedy: list[bool]
) -> list[list[LogLikelihood]]:
    results, at = [], 0
    for group in continuations:
        scored = []
        for tokens in group:
            end = at + len(tokens)
            scored.append(LogLikelihood(sum(values[at:end]), len(tokens), all(greedy[at:end])))
            at = end
        results.append(scored)
    return results
