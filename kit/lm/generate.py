"""Greedy generation and log-likelihoods on plain transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from kit.lm.backend import Generation, LogLikelihood, check_pairs
from kit.lm.model import embedding_matrix, vocabulary_rows

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.lm.static_decode import StepGraphs

MOST_SCORES = 1 << 28
"""Scores (positions times vocabulary) that exist at once: 1 GiB in float32."""


class TransformersBackend:
    """Batches padded on the left, shortest prompts first; decoding with a key-value cache.

    Ties go to the lowest id. In fp32 the result does not depend on the batch size or on the cache,
    except where the two best scores differ by less than the rounding of a differently shaped matrix
    product (about 1e-6 relative); in bf16 such near-ties are common (defensive_tokens.md, P16).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        pad_id: int,
        *,
        max_batch: int = 128,
        max_tokens: int = 16384,
        use_cache: bool = True,
        static: bool | None = None,
    ) -> None:
        """Wrap a model.

        Args:
            model: A causal language model in evaluation mode.
            pad_id: Any id of the vocabulary; it is masked out.
            max_batch: Most prompts in a batch.
            max_tokens: Most prompt tokens, padding included, in a batch; bounds memory.
            use_cache: Off recomputes everything for every token; for tests.
            static: Whether text is decoded in fixed shapes (:mod:`kit.lm.static_decode`); ``None``
                means on a GPU, with recorded steps, wherever the model allows it.
        """
        if not 0 <= pad_id < vocabulary_rows(model):
            raise ValueError(f"the padding id {pad_id} is not in the vocabulary")
        if max_batch < 1 or max_tokens < 1:
            raise ValueError("max_batch and max_tokens must be at least 1")
        self.model = model
        self.pad_id = pad_id
        self.max_batch = max_batch
        self.max_tokens = max_tokens
        self.use_cache = use_cache
        self.static = static
        self._graphs: StepGraphs | None = None

    @property
    def vocabulary_size(self) -> int:
        """Rows of the input embedding matrix."""
        return vocabulary_rows(self.model)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop_ids: Sequence[int],
        banned_ids: Sequence[int] = (),
        prefix: Tensor | None = None,
    ) -> list[Generation]:
        """See :meth:`Backend.generate`.

        Raises:
            ValueError: An empty prompt, one too long for the model, ``max_new_tokens`` below 1.
        """
        import torch

        decode = self._decoder()
        if max_new_tokens < 1:
            raise ValueError("max_new_tokens must be at least 1")
        if any(not prompt for prompt in prompts):
            raise ValueError("an empty prompt cannot be continued")
        self._fit(prompts, max_new_tokens)
        results: dict[int, Generation] = {}
        with torch.inference_mode():
            for batch in self._batches(prompts, [1] * len(prompts)):
                generations = decode(
                    self.model,
                    [prompts[i] for i in batch],
                    prefix=prefix,
                    pad_id=self.pad_id,
                    max_new_tokens=max_new_tokens,
                    stop_ids=stop_ids,
                    banned_ids=banned_ids,
                )
                results.update(zip(batch, generations, strict=True))
        return [results[i] for i in range(len(prompts))]

    def loglikelihoods(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        prefix: Tensor | None = None,
    ) -> list[LogLikelihood]:
        """See :meth:`Backend.loglikelihoods`; pairs with the same input are computed once.

        Raises:
            ValueError: An empty context or continuation, or one too long for the model.
        """
        import torch

        from kit.lm.likelihood import score_batch, shared_inputs

        check_pairs(pairs, self.vocabulary_size)
        shared = shared_inputs(pairs)
        inputs, users = list(shared), list(shared.values())
        self._fit(inputs, 0)
        longest = [max(len(pairs[number][1]) for number in numbers) for numbers in users]
        results: dict[int, LogLikelihood] = {}
        with torch.inference_mode():
            for batch in self._batches(inputs, longest):
                scored = score_batch(
                    self.model,
                    [inputs[i] for i in batch],
                    [[pairs[number][1] for number in users[i]] for i in batch],
                    prefix=prefix,
                    pad_id=self.pad_id,
                )
                for i, group in zip(batch, scored, strict=True):
                    results.update(zip(users[i], group, strict=True))
        return [results[number] for number in range(len(pairs))]

    def _decoder(self) -> Callable[..., list[Generation]]:
        """What continues a batch."""
        from kit.lm.decode import decode_batch
        from kit.lm.static_decode import StepGraphs, decode_static, unlike_static

        device = embedding_matrix(self.model).device
        on_gpu = device.type == "cuda"
        static = on_gpu and self.use_cache if self.static is None else self.static
        reason = unlike_static(self.model) if static else None
        if self.static and reason is not None:
            raise ValueError(f"static decoding cannot be had: {reason}")
        if not static or reason is not None:
            return partial(decode_batch, use_cache=self.use_cache)
        if on_gpu and self._graphs is None:
            self._graphs = StepGraphs(device)
        return partial(decode_static, graphs=self._graphs)

    def _fit(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
        """Refuse what lies beyond the positions that the model was made for."""
        limit = getattr(self.model.config, "max_position_embeddings", None)
        longest = max(map(len, prompts), default=0)
        if limit is not None and longest + max_new_tokens > limit:
            index = [len(prompt) for prompt in prompts].index(longest)
            raise ValueError(
                f"prompt {index} has {longest:,} tokens and {max_new_tokens} more are wanted, but "
                f"the model takes {limit:,}"
            )

    def _batches(self, prompts: Sequence[Sequence[int]], scored: Sequence[int]) -> list[list[int]]:
        """Indices by length (then position), cut where a batch would exceed a bound.

        Args:
            prompts: Token ids.
            scored: Columns of each prompt that pass through the output layer.
        """
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        most_scored = max(1, MOST_SCORES // self.vocabulary_size)
        batches: list[list[int]] = []
        widest = 0
        for i in order:
            last = batches[-1] if batches else []
            rows, columns = len(last) + 1, max(widest, scored[i])
            full = rows > self.max_batch or rows * columns > most_scored
            if not last or full or rows * len(prompts[i]) > self.max_tokens:
                batches.append([i])
                widest = scored[i]
            else:
                last.append(i)
                widest = columns
        return batches
