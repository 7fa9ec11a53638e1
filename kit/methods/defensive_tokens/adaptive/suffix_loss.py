"""How unlikely a model finds a target answer behind a searched suffix, and the gradient of that."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch

from kit.lm.forward import last_scores
from kit.lm.model import decoder, embedding_matrix
from kit.lm.padding import left_pad, positions
from kit.lm.prefix import embed
from kit.methods.defensive_tokens.adaptive.prompts import OpenPrompt

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class SuffixLoss:
    """Mean negative log-likelihood of the target's tokens, for several items at once.

    What stands before a suffix does not change while it is searched, so its keys and values are
    computed once; padding stands on the left of it, so that suffixes and what follows share
    columns.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[OpenPrompt],
        target: Sequence[int],
        *,
        prefix: Tensor | None,
        pad_id: int,
        allowed: Sequence[int],
        rows: int = 512,
        use_cache: bool = True,
    ) -> None:
        """Prepare the items.

        Args:
            model: A frozen causal language model in evaluation mode.
            prompts: Of the items; the same tokens must follow the suffix in all of them.
            target: Ids that the answer should begin with.
            prefix: [n, d] vectors for the slots in the prompts; ``None`` where they have none.
            pad_id: Fills shorter prompts; masked out.
            allowed: Ids that may be searched.
            rows: Most suffixes in a forward pass: memory and speed, not the loss beyond rounding.
            use_cache: Off computes everything anew for every suffix; for tests.

        Raises:
            ValueError: No target, no allowed id, or prompts that go on differently.
        """
        if not target or not allowed:
            raise ValueError("a search needs a target and ids that it may use")
        if len({prompt.after for prompt in prompts}) != 1:
            raise ValueError("the prompts searched together go on differently behind the suffix")
        device = embedding_matrix(model).device
        self._model, self._rows = model, rows
        self._allowed = torch.tensor(allowed, device=device)
        self._target = torch.tensor(target, device=device)
        ids, self._mask = left_pad([prompt.before for prompt in prompts], pad_id, device)
        tail = torch.tensor([[*prompts[0].after, *target[:-1]]], device=device)
        with torch.no_grad():
            before = embed(model, ids, prefix)
            self._tail = embed(model, tail, None)
            # Rows of the module, not of its matrix: some models scale what they look up.
            self._embeddings = embed(model, self._allowed[None], None)[0]
        self._before = None if use_cache else before
        self._cache: Any = _keys_and_values(model, before, self._mask) if use_cache else None

    @property
    def allowed(self) -> Tensor:
        """[A] int64, the ids that may be searched."""
        return self._allowed

    def losses(self, items: Tensor, suffixes: Tensor) -> Tensor:
        """Loss of each suffix.

        Args:
            items: [M] int64, numbers of the items.
            suffixes: [M, S] int64.

        Returns:
            [M] nats a target token, in float32 at least.
        """
        parts = []
        with torch.no_grad():
            for start in range(0, len(items), self._rows):
                part = slice(start, start + self._rows)
                rows = embed(self._model, suffixes[part], None)
                parts.append(self._of_embeddings(items[part], rows))
        return torch.cat(parts)

    def gradient(self, items: Tensor, suffixes: Tensor) -> Tensor:
        """Gradient of each loss with respect to the one-hot vectors of its suffix.

        A suffix is its one-hot vectors times the embedding rows, so the gradient is that of the
        suffix's embeddings times these rows.

        Args:
            items: [M] int64.
            suffixes: [M, S] int64.

        Returns:
            [M, S, A], a column for every allowed id.
        """
        parts = []
        for start in range(0, len(items), self._rows):
            part = slice(start, start + self._rows)
            with torch.enable_grad():
                rows = embed(self._model, suffixes[part], None).detach().requires_grad_()
                total = self._of_embeddings(items[part], rows).sum()
                (gradient,) = torch.autograd.grad(total, rows)
            parts.append(gradient @ self._embeddings.T)
        return torch.cat(parts)

    def _of_embeddings(self, items: Tensor, suffixes: Tensor) -> Tensor:
        """Loss [M] of suffix embeddings [M, S, d]."""
        new = torch.cat([suffixes, self._tail.expand(len(items), -1, -1)], dim=1)
        mask = self._mask[items]
        mask = torch.cat([mask, mask.new_ones(new.shape[:2])], dim=1)
        inputs: dict[str, Any] = {"inputs_embeds": new, "use_cache": False}
        if self._before is not None:
            inputs["inputs_embeds"] = torch.cat([self._before[items], new], dim=1)
        else:
            cache = deepcopy(self._cache)  # a forward pass adds to the cache that it is given
            cache.batch_select_indices(items)
            inputs |= {"past_key_values": cache, "use_cache": True}
        columns = inputs["inputs_embeds"].shape[1]
        scores = last_scores(
            self._model,
            len(self._target),
            attention_mask=None if bool(mask.all()) else mask,
            position_ids=positions(mask)[:, -columns:],
            **inputs,
        )
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        own = scores.gather(2, self._target[None, :, None].expand(len(items), -1, 1))[..., 0]
        return (scores.logsumexp(dim=2) - own).mean(dim=1)


def _keys_and_values(model: PreTrainedModel, before: Tensor, mask: Tensor) -> Any:
    """The cache behind the columns in front of the suffixes."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        decoder(model)(
            inputs_embeds=before,
            attention_mask=None if bool(mask.all()) else mask,
            position_ids=positions(mask),
            past_key_values=cache,
            use_cache=True,
        )
    return cache
