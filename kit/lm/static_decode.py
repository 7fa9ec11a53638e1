"""Greedy decoding in tensors of fixed shape, so that a GPU repeats a step without its host.

Step by step, a small model waits for the host: 24 layers are about a thousand launches, and half a
billion parameters in bf16 are read in 0.3 ms. Here a step is recorded once (a CUDA graph) and then
replayed for a stretch of tokens; ids, positions, mask and the column that is written live on the
device and are advanced by the step itself. Rows that met a stop token leave between stretches.

The step calls the model's own forward pass with a cache and a mask of ours: one query column sees
the columns that the mask lets through, of those that are still empty none.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from kit.lm.architectures import ARCHITECTURES
from kit.lm.backend import Generation
from kit.lm.decode import banned_tensor, next_scores
from kit.lm.forward import last_scores, slides
from kit.lm.model import embedding_matrix, inner_model
from kit.lm.padding import left_pad, positions
from kit.lm.prefix import embed

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

STRETCH = 64
"""Tokens between two looks at who has stopped. A stretch costs two passes at the host's pace (its
first step and the recording), and computes what rows that stopped in it would have gone on with."""
COLUMNS = 16
"""Buffers are multiples of this wide: attention kernels copy a mask that is not."""
GROUPED = "kit_grouped_sdpa"
_MOVING_ROPE = ("dynamic", "longrope")
"""Rotary embeddings that depend on the longest position so far: the host would have to read it."""


def unlike_static(model: PreTrainedModel) -> str | None:
    """Why a model cannot decode in fixed shapes, or ``None``.

    Returns:
        A sentence for an error message, or ``None``.
    """
    config = inner_model(model).config
    if config.model_type not in ARCHITECTURES:
        return f"models of type {config.model_type!r} were not compared with fixed shapes"
    if config.model_type == "falcon":
        return "a step of Falcon makes tensors from Python's numbers, which cannot be recorded"
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    if any(kind.get("rope_type") in _MOVING_ROPE for kind in kinds):
        return "its rotary embedding changes with the length of the text"
    weight = embedding_matrix(model)
    if any(p.device != weight.device or not p.numel() for p in model.parameters()):
        return "its weights are not whole on a single device"
    return None


class StepGraphs:
    """Records steps on a GPU, all into the same memory.

    Attributes:
        usable: Off after a recording failed; steps are then run as they are, with equal results.
    """

    def __init__(self, device: torch.device) -> None:
        self.usable = True
        self.recorded = 0
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # The last graph keeps the memory that the next is recorded into.
        self._last: torch.cuda.CUDAGraph | None = None

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Everything inside runs on the stream of the recordings, in order with the outside."""
        outside = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            yield
        outside.wait_stream(self._stream)

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        """What repeats a step that has run before; the step itself where recording fails."""
        if not self.usable:
            return step
        graph = torch.cuda.CUDAGraph()
        pool = None if self._last is None else self._last.pool()
        try:
            with torch.cuda.graph(
                graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                step()
        except RuntimeError as error:
            warnings.warn(
                f"decoding goes on without a CUDA graph, slower and with equal results: {error}",
                stacklevel=2,
            )
            self.usable = False
            return step
        self._last = graph
        self.recorded += 1
        return graph.replay


def decode_static(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    prefix: Tensor | None,
    pad_id: int,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    banned_ids: Sequence[int],
    graphs: StepGraphs | None,
) -> list[Generation]:
    """Continue one batch of prompts; without ``graphs`` every step is run by the host."""
    with nullcontext() if graphs is None else graphs.stream():
        return _decode(
            model, prompts, prefix, pad_id, max_new_tokens, set(stop_ids), banned_ids, graphs
        )


def _decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    prefix: Tensor | None,
    pad_id: int,
    max_new_tokens: int,
    stop: set[int],
    banned_ids: Sequence[int],
    graphs: StepGraphs | None,
) -> list[Generation]:
    device = embedding_matrix(model).device
    banned = banned_tensor(banned_ids, model, device)
    ids, mask = left_pad(prompts, pad_id, device)
    cache = DynamicCache()
    scores = next_scores(model, embed(model, ids, prefix), mask, cache)
    first = _pick(scores, banned)
    texts = [_Text() for _ in prompts]
    rows = _take(texts, range(len(prompts)), first.tolist(), stop)
    batch = _Batch(model, cache, mask, first, banned, max_new_tokens)
    del cache, scores
    done = 1
    with _grouped_attention(model):
        while rows and done < max_new_tokens:
            count = min(STRETCH, max_new_tokens - done)
            made = batch.go_on(rows, count, graphs).tolist()
            rows = _take(texts, rows, made, stop)
            done += count
    return [text.generation() for text in texts]


class _Text:
    """What a row has produced so far."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.stopped = False

    def take(self, tokens: Sequence[int], stop: set[int]) -> None:
        for token in tokens:
            if token in stop:
                self.stopped = True
                return
            self.ids.append(token)

    def generation(self) -> Generation:
        return Generation(tuple(self.ids), "stop" if self.stopped else "length")


def _take(
    texts: Sequence[_Text], rows: Sequence[int], made: Sequence[Sequence[int]], stop: set[int]
) -> list[int]:
    """Hand each row its tokens; the rows that go on."""
    for row, tokens in zip(rows, made, strict=True):
        texts[row].take(tokens, stop)
    return [row for row in rows if not texts[row].stopped]


def _pick(scores: Tensor, banned: Tensor | None) -> Tensor:
    """Best ids [B, 1] of scores [B, V]; the first of equal maxima is the lowest id."""
    if banned is not None:
        scores = scores.index_fill(1, banned, float("-inf"))
    return scores.argmax(dim=-1, keepdim=True)


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of a block, written into a given column of buffers that are there already."""

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor, column: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values, self.column = keys, values, column
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self.keys.index_copy_(2, self.column, key_states)
        self.values.index_copy_(2, self.column, value_states)
        return self.keys, self.values


class _Batch:
    """The rows of a batch behind their prompts, in buffers for the longest that they may become.

    Row r of every buffer belongs to prompt ``self.rows[r]``; buffers have more rows and columns
    than are in use, and a stretch sees a part of them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        cache: DynamicCache,
        mask: Tensor,
        ids: Tensor,
        banned: Tensor | None,
        max_new_tokens: int,
    ) -> None:
        self.model, self.banned = model, banned
        self.rows = list(range(len(ids)))
        self.used = mask.shape[1]
        self.buffers = [
            (_widened(layer, "keys", max_new_tokens), _widened(layer, "values", max_new_tokens))
            for layer in cache.layers
        ]
        dtype = embedding_matrix(model).dtype
        self.hidden = torch.finfo(dtype).min
        width = _rounded(self.used + max_new_tokens)
        # Added to the scores of attention, in their own dtype: others are converted in every layer.
        self.mask = torch.full(
            (len(ids), 1, 1, width), self.hidden, dtype=dtype, device=mask.device
        )
        self.mask[:, 0, 0, : self.used].masked_fill_(mask, 0.0)
        self.ids = ids
        self.position = positions(mask)[:, -1:] + 1
        self.column = torch.full((1,), self.used, dtype=torch.long, device=mask.device)

    def go_on(self, rows: Sequence[int], count: int, graphs: StepGraphs | None) -> Tensor:
        """The next tokens [B, count] of some of the rows, all others being dropped."""
        self._keep(rows)
        step, made = self._step(count)
        step()
        repeat = step if graphs is None or count < 3 else graphs.record(step)
        for _ in range(count - 1):
            repeat()
        self.used += count
        return made

    def _keep(self, rows: Sequence[int]) -> None:
        if list(rows) == self.rows:
            return
        index = {row: number for number, row in enumerate(self.rows)}
        kept = torch.tensor([index[row] for row in rows], device=self.ids.device)
        for buffer in (*(half for pair in self.buffers for half in pair), self.mask):
            buffer[: len(rows)] = buffer[kept]
        self.ids, self.position = self.ids[kept], self.position[kept]
        self.rows = list(rows)

    def _step(self, count: int) -> tuple[Callable[[], None], Tensor]:
        """A step that advances every row by a token, and the tensor [B, count] that it fills."""
        height, width = len(self.rows), _rounded(self.used + count)
        layers: list[Any] = [
            _Layer(keys[:height, :, :width], values[:height, :, :width], self.column)
            for keys, values in self.buffers
        ]
        cache, mask = Cache(layers=layers), self.mask[:height, ..., :width]
        columns = torch.arange(width, device=mask.device)
        made = torch.zeros(height, count, dtype=torch.long, device=mask.device)
        number = torch.zeros(1, dtype=torch.long, device=mask.device)
        model, ids, position, column = self.model, self.ids, self.position, self.column
        config = inner_model(model).config

        def step() -> None:
            mask.index_fill_(3, column, 0.0)
            scores = last_scores(
                model,
                1,
                inputs_embeds=model.get_input_embeddings()(ids),
                attention_mask=_masks(config, mask, columns, column, self.hidden),
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
            )
            ids.copy_(_pick(scores[:, 0], self.banned))
            made.index_copy_(1, number, ids)
            for counter in (position, column, number):
                counter.add_(1)

        return step, made


def _masks(
    config: PretrainedConfig, mask: Tensor, columns: Tensor, column: Tensor, hidden: float
) -> Tensor | dict[str, Tensor]:
    """The mask in the form that the architecture takes: with windows one for each kind of layer."""
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds & {"sliding_attention"} and not slides(config):
        return mask
    window = torch.where(columns > column - int(config.sliding_window), mask, hidden)
    return {"full_attention": mask, "sliding_attention": window} if kinds else window


def _widened(layer: Any, name: str, more: int) -> Tensor:
    """A copy [B, H, T', d] of a layer's keys or values that has room; frees the original."""
    old: Tensor = getattr(layer, name)
    shape = (*old.shape[:2], _rounded(old.shape[2] + more), old.shape[3])
    # Zeros: what attention weighs with zero must still be a number.
    new = torch.zeros(shape, dtype=old.dtype, device=old.device)
    new[:, :, : old.shape[2]] = old
    setattr(layer, name, None)
    return new


def _rounded(width: int) -> int:
    return -(-width // COLUMNS) * COLUMNS


def grouped_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one query column [B, H, 1, d] over fewer key heads [B, H', T, d].

    The query heads that share keys stand as rows of one query, so that keys and values are read
    once. The way of transformers copies them for every query head, seven times for Qwen2-0.5B.
    """
    batch, heads, _columns, width = query.shape
    rows = query.reshape(batch, key.shape[1], heads // key.shape[1], width)
    out = torch.nn.functional.scaled_dot_product_attention(
        rows, key, value, attn_mask=attention_mask, scale=scaling
    )
    return out.reshape(batch, 1, heads, value.shape[-1]), None


@contextmanager
def _grouped_attention(model: PreTrainedModel) -> Iterator[None]:
    """Attention by groups, where the model shares keys between heads and runs plain SDPA."""
    config = inner_model(model).config
    before = config._attn_implementation
    heads = int(getattr(config, "num_attention_heads", 0))
    shared = int(getattr(config, "num_key_value_heads", None) or heads) < heads
    if before != "sdpa" or not shared:
        yield
        return
    AttentionInterface.register(GROUPED, grouped_attention)
    config._attn_implementation = GROUPED
    try:
        yield
    finally:
        config._attn_implementation = before
