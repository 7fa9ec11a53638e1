"""Prefix training with all examples of a step in one row, and no example seeing another.

The arithmetic is that of the padded forward pass in :mod:`.loss`; only work that
does not reach the loss is left out: padding is not computed, attention runs inside each example
(variable-length kernel), and the output layer sees nothing but the states that predict a label.
Rotary positions count from 0 in every example, as in the padded run.

What each choice brought is measured in ``docs/performance.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate as running_sum
from typing import TYPE_CHECKING, Any

import torch

from kit.lm.model import vocabulary_rows
from kit.methods.defensive_tokens.prefix_training import llama_block
from kit.methods.defensive_tokens.prefix_training.frozen_head import head_cross_entropy
from kit.methods.defensive_tokens.prefix_training.llama_block import Spans
from kit.methods.defensive_tokens.prefix_training.packed_model import can_use_kernel, ready
from kit.train.batching import Example, even_groups

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

# With checkpointing the scores of the label tokens would be the largest thing in memory: at 1,024
# tokens and 128,256 words they are 0.26 GB in bf16.
LOW_MEMORY_CHUNK = 1024


@dataclass(frozen=True)
class Packed:
    """Examples behind one another in a single row, each without its last token.

    Attributes:
        ids: [1, R] int64, prefix slots included; what all examples begin with stands once, first.
        position_ids: [1, R] int64; 0, 1, 2, ... from the first token of every example.
        spans: Which columns belong together.
        longest: Columns, and keys, of the longest sequence.
        shared: How many columns stand for all examples.
        predicting: [N] int64, columns whose states predict a label.
        targets: [N] int64, those labels.
        owners: [N] int64, the example each label belongs to.
        slots: [S] int64, columns that carry a prefix vector.
        vectors: [S] int64, which vector.
    """

    ids: Tensor
    position_ids: Tensor
    spans: Spans
    longest: tuple[int, int]
    shared: int
    predicting: Tensor
    targets: Tensor
    owners: Tensor
    slots: Tensor
    vectors: Tensor


def pack(
    examples: Sequence[Example],
    vocabulary_size: int,
    device: torch.device | str = "cpu",
    *,
    share: bool = True,
) -> Packed:
    """One row, in the order given.

    Everything is worked out on the CPU and sent in one copy that nobody waits for: the GPU is
    usually still busy with the step before.

    Args:
        examples: At least one.
        vocabulary_size: Ids from here on are prefix slots.
        device: Where the row goes.
        share: Put what all examples begin with into the row once.

    Raises:
        ValueError: No examples.
    """
    if not examples:
        raise ValueError("a packed row needs at least one example")
    common = common_start(examples) if share else 0
    # The last id of an example is a label only: nothing is predicted from it or looks at it.
    lengths = [len(example.ids) - 1 - common for example in examples]
    sequences = ([common] if common else []) + lengths
    rows = [0, *running_sum(sequences)]
    firsts = rows[1:] if common else rows
    keys = [0, *running_sum(([common] if common else []) + [common + n for n in lengths])]
    parts: dict[str, list[int]] = {
        "ids": list(examples[0].ids[:common]),
        "positions": list(range(common)),
        "gather": list(range(common)),
        "predicting": [],
        "targets": [],
        "owners": [],
    }
    for owner, (example, first, length) in enumerate(zip(examples, firsts, lengths, strict=False)):
        predicting = first + example.prompt_length - common - 1
        parts["ids"] += example.ids[common:-1]
        parts["positions"] += range(common, common + length)
        parts["gather"] += [*range(common), *range(first, first + length)]
        parts["predicting"] += range(predicting, first + length)
        parts["targets"] += example.ids[example.prompt_length :]
        parts["owners"] += [owner] * example.labels
    ids = parts["ids"]
    parts["slots"] = [column for column, token in enumerate(ids) if token >= vocabulary_size]
    parts["vectors"] = [ids[column] - vocabulary_size for column in parts["slots"]]
    own = [key for key, row in enumerate(parts["gather"]) if row >= common]
    parts["first"] = [*range(common), *own]
    parts["again"] = [key for key, row in enumerate(parts["gather"]) if row < common]
    parts["row bounds"], parts["key bounds"] = rows, keys
    sent = _send(parts, device)
    return Packed(
        ids=sent["ids"][None],
        position_ids=sent["positions"][None],
        spans=Spans(
            queries=sent["row bounds"].int(),
            keys=sent["key bounds"].int(),
            gather=sent["gather"],
            first=sent["first"],
            again=sent["again"].view(len(sequences), common),
        ),
        longest=(max(sequences), common + max(lengths)),
        shared=common,
        **{name: sent[name] for name in ("predicting", "targets", "owners", "slots", "vectors")},
    )


def common_start(examples: Sequence[Example]) -> int:
    """How many tokens all examples begin with, short of those that predict a label; 0 for one."""
    if len(examples) < 2:
        return 0
    most = min(example.prompt_length for example in examples) - 1
    first = examples[0].ids
    return next(
        (i for i in range(most) if any(example.ids[i] != first[i] for example in examples)), most
    )


def _send(parts: dict[str, list[int]], device: torch.device | str) -> dict[str, Tensor]:
    flat = torch.tensor([value for part in parts.values() for value in part], dtype=torch.long)
    if torch.device(device).type == "cuda":
        flat = flat.pin_memory().to(device, non_blocking=True)
    pieces = torch.split(flat, [len(part) for part in parts.values()])
    return dict(zip(parts, pieces, strict=True))


def embed_packed(model: PreTrainedModel, packed: Packed, prefix: Tensor) -> Tensor:
    """[R, d] input embeddings; as :func:`kit.lm.prefix.embed`, without waiting for the GPU.

    The gradients of the examples are summed in the prefix's own dtype, fp32.
    """
    module = model.get_input_embeddings()
    rows = module(packed.ids.index_fill(1, packed.slots, 0))[0]
    put = prefix.index_select(0, packed.vectors).to(rows.dtype)
    return rows.index_copy(0, packed.slots, put)  # type: ignore[no-any-return]


def block_causal_mask(bounds: Tensor, shared: int = 0) -> Tensor:
    """[1, 1, R, R] bool: true where a token may look.

    That is at itself and left of itself in its sequence, and at the shared columns. For devices and
    dtypes without a variable-length kernel; R^2 bytes.
    """
    lengths = (bounds[1:] - bounds[:-1]).long()
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=bounds.device), lengths)
    seen = owner[:, None] == owner[None, :]
    seen[:, :shared] = True
    return torch.tril(seen)[None, None]


def packed_loss(
    model: PreTrainedModel,
    prefix: Tensor,
    packed: Packed,
    weights: Tensor,
    *,
    chunk: int = 4096,
    compiled: bool = False,
    low_memory: bool = False,
) -> Tensor:
    """Weighted loss of one packed row; call it inside :func:`.packed_model.ready`.

    Args:
        model: Frozen causal language model.
        prefix: [n, d], requires a gradient.
        packed: B examples.
        weights: [B] float32, of one label token of each example.
        chunk: Most label tokens whose scores exist at once.
        compiled: Compile the layers and the softmax of the output layer.
        low_memory: Checkpoint the layers.

    Returns:
        A float32 scalar.
    """
    embeds = embed_packed(model, packed, prefix)
    spans = packed.spans
    mask = None
    if not can_use_kernel(embeds):
        mask = block_causal_mask(spans.queries, packed.shared)
    if llama_block.fits(model):
        states = llama_block.label_states(
            model,
            embeds,
            packed.position_ids,
            spans,
            packed.longest,
            mask,
            packed.predicting,
            compiled=compiled,
            low_memory=low_memory,
        )
    else:
        assert packed.shared == 0
        bounds: dict[str, Any] = {
            "cu_seq_lens_q": spans.queries,
            "max_length_q": packed.longest[0],
        }
        states = model.model(
            inputs_embeds=embeds[None],
            attention_mask=mask,
            position_ids=packed.position_ids,
            use_cache=False,
            **(bounds if mask is None else {}),
        ).last_hidden_state[0, packed.predicting]
    return head_cross_entropy(
        states,
        model.lm_head,
        packed.targets,
        weights[packed.owners],
        chunk=chunk,
        compiled=compiled,
    )


def packed_losses(
    model: PreTrainedModel,
    prefix: Tensor,
    examples: Sequence[Example],
    weights: Sequence[float],
    *,
    rows: int = 16,
    chunk: int = 4096,
    compiled: bool = False,
    low_memory: bool = False,
) -> Iterator[Tensor]:
    """The loss of each packed row, one after the other; a backward pass belongs inside the loop.

    Args:
        model: Frozen causal language model.
        prefix: [n, d], a leaf that requires a gradient.
        examples: Of the step.
        weights: One an example, of one of its label tokens; from ``losses.token_weights``.
        rows: Most examples in one packed row.
        chunk: Most label tokens whose scores exist at once.
        compiled: Compile the decoder layers on first use; costs seconds once.
        low_memory: Keep only the layers' inputs and compute the rest again in the backward pass:
            half more arithmetic, a fraction of the memory.

    Raises:
        ValueError: A slot without a prefix vector.
    """
    device = prefix.device
    vocabulary_size = vocabulary_rows(model)
    if max((max(e.ids) for e in examples), default=0) - vocabulary_size >= prefix.shape[0]:
        raise ValueError(
            f"an example has a slot beyond the {prefix.shape[0]} vectors of the prefix"
        )
    if low_memory:
        chunk = min(chunk, LOW_MEMORY_CHUNK)
    others = not llama_block.fits(model)
    for group in even_groups([len(e.ids) for e in examples], rows):
        packed = pack([examples[i] for i in group], vocabulary_size, device, share=not others)
        share = torch.tensor([weights[i] for i in group], dtype=torch.float32)
        if device.type == "cuda":
            share = share.pin_memory().to(device, non_blocking=True)
        with ready(model, compiled=compiled and others, low_memory=low_memory and others):
            # Inside, because the backward pass of low_memory runs the layers again. Without a name
            # here, because a name would keep the graph while the next one is made.
            yield packed_loss(
                model,
                prefix,
                packed,
                share,
                chunk=chunk,
                compiled=compiled,
                low_memory=low_memory,
            )
