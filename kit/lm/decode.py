"""The greedy decoding loop for one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from kit.lm.backend import Generation
from kit.lm.forward import last_scores
from kit.lm.model import embedding_matrix, output_rows
from kit.lm.padding import left_pad, positions
from kit.lm.prefix import embed

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def decode_batch(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    prefix: Tensor | None,
    pad_id: int,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    banned_ids: Sequence[int],
    use_cache: bool,
) -> list[Generation]:
    """Continue one batch of prompts; a row that meets a stop token leaves the batch at once."""
    from transformers import DynamicCache

    device = embedding_matrix(model).device
    ids, mask = left_pad(prompts, pad_id, device)
    stop = torch.tensor(sorted(stop_ids), device=device, dtype=torch.long)
    banned = banned_tensor(banned_ids, model, device)
    alive = torch.arange(len(prompts), device=device)
    produced: list[tuple[Tensor, Tensor]] = []
    cache = DynamicCache(config=model.config) if use_cache else None
    embeds = embed(model, ids, prefix)
    for step in range(max_new_tokens):
        scores = next_scores(model, embeds, mask, cache)
        if banned is not None:
            scores = scores.index_fill(1, banned, float("-inf"))
        # torch.argmax returns the first of equal maxima: the lowest id.
        new = scores.argmax(dim=-1)
        produced.append((alive, new))
        keep = torch.isin(new, stop, invert=True).nonzero().flatten()
        if step + 1 == max_new_tokens or keep.numel() == 0:
            break
        if keep.numel() < new.numel():
            alive, new, mask = alive[keep], new[keep], mask[keep]
            embeds = embeds[keep]
            if cache is not None:
                cache.batch_select_indices(keep)
        mask = torch.cat([mask, mask.new_ones(len(new), 1)], dim=1)
        row = model.get_input_embeddings()(new[:, None])
        embeds = row if cache is not None else torch.cat([embeds, row], dim=1)
    return _collect(produced, len(prompts), set(stop_ids))


def next_scores(model: PreTrainedModel, embeds: Tensor, mask: Tensor, cache: object) -> Tensor:
    """fp32 scores [B, V] for the token after the last column.

    ``embeds`` are the columns that the cache does not hold yet; ``mask`` covers all columns.
    """
    # Without padding no mask is passed, which lets attention take its fast causal path.
    scores = last_scores(
        model,
        1,
        inputs_embeds=embeds,
        attention_mask=None if bool(mask.all()) else mask,
        position_ids=positions(mask)[:, -embeds.shape[1] :],
        past_key_values=cache,
        use_cache=cache is not None,
    )
    return scores[:, 0].float()


def banned_tensor(
    ids: Sequence[int], model: PreTrainedModel, device: torch.device
) -> Tensor | None:
    """Those of the ids that have a score."""
    known = sorted({i for i in ids if 0 <= i < output_rows(model)})
    return torch.tensor(known, device=device, dtype=torch.long) if known else None


def _collect(produced: list[tuple[Tensor, Tensor]], count: int, stop: set[int]) -> list[Generation]:
    tokens: list[list[int]] = [[] for _ in range(count)]
    stopped = [False] * count
    for alive, new in produced:
        for row, token in zip(alive.tolist(), new.tolist(), strict=True):
            if token in stop:
                stopped[row] = True
            else:
                tokens[row].append(token)
    return [
        Generation(tuple(ids), "stop" if done else "length")
        for ids, done in zip(tokens, stopped, strict=True)
    ]
