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

from kit.lm.forward import unlike_plain_attention, unlike_plain_head
from kit.lm.model import decoder, vocabulary_rows
from kit.lm.prefix import check_width
from kit.methods.defensive_tokens.prefix_training.frozen_head import head_cross_entropy
from kit.methods.defensive_tokens.prefix_training.packed_model import can_use_kernel, ready
from kit.train.batching import Example, even_groups

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

# With checkpointing the scores of the label tokens would be the largest thing in memory: at 512
# tokens and 151,936 words they are 0.16 GB in bf16, and 0.3 GB for each copy in fp32 on the way.
LOW_MEMORY_CHUNK = 512


@dataclass(frozen=True)
class Packed:
    """B examples behind one another in a single row, each without its last token.

    Attributes:
        ids: [1, R] int64, prefix slots included.
        position_ids: [1, R] int64; 0, 1, 2, ... from the first token of every example.
        bounds: [B + 1] int32, where the examples begin and end in the row.
        longest: Columns of the longest example.
        predicting: [N] int64, columns whose states predict a label.
        targets: [N] int64, those labels.
        owners: [N] int64, the example each label belongs to.
        slots: [S] int64, columns that carry a prefix vector.
        vectors: [S] int64, which vector.
    """

    ids: Tensor
    position_ids: Tensor
    bounds: Tensor
    longest: int
    predicting: Tensor
    targets: Tensor
    owners: Tensor
    slots: Tensor
    vectors: Tensor


def pack(
    examples: Sequence[Example], vocabulary_size: int, device: torch.device | str = "cpu"
) -> Packed:
    """One row, in the order given.

    Everything is worked out on the CPU and sent in one copy that nobody waits for: the GPU is
    usually still busy with the step before.

    Args:
        examples: At least one.
        vocabulary_size: Ids from here on are prefix slots.
        device: Where the row goes.

    Raises:
        ValueError: No examples.
    """
    if not examples:
        raise ValueError("a packed row needs at least one example")
    # The last id of an example is a label only: nothing is predicted from it or looks at it.
    lengths = [len(example.ids) - 1 for example in examples]
    bounds = [0, *running_sum(lengths)]
    parts: dict[str, list[int]] = {
        "ids": [],
        "positions": [],
        "predicting": [],
        "targets": [],
        "owners": [],
        "bounds": bounds,
    }
    for owner, (example, first, length) in enumerate(zip(examples, bounds, lengths, strict=False)):
        if example.hidden:
            raise ValueError(f"example {example.id} hides labels, which a packed pass would train")
        parts["ids"] += example.ids[:-1]
        parts["positions"] += range(length)
        parts["predicting"] += range(first + example.prompt_length - 1, first + length)
        parts["targets"] += example.ids[example.prompt_length :]
        parts["owners"] += [owner] * example.labels
    ids = parts["ids"]
    parts["slots"] = [column for column, token in enumerate(ids) if token >= vocabulary_size]
    parts["vectors"] = [ids[column] - vocabulary_size for column in parts["slots"]]
    sent = _send(parts, device)
    return Packed(
        ids=sent["ids"][None],
        position_ids=sent["positions"][None],
        bounds=sent["bounds"].int(),
        longest=max(lengths),
        **{name: sent[name] for name in ("predicting", "targets", "owners", "slots", "vectors")},
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


def block_causal_mask(bounds: Tensor) -> Tensor:
    """[1, 1, R, R] bool: true where a token may look, at itself and left of itself in its example.

    For devices and dtypes without a variable-length kernel; R^2 bytes.
    """
    lengths = (bounds[1:] - bounds[:-1]).long()
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=bounds.device), lengths)
    return torch.tril(owner[:, None] == owner[None, :])[None, None]


def packed_loss(
    model: PreTrainedModel,
    prefix: Tensor,
    packed: Packed,
    weights: Tensor,
    *,
    chunk: int = 4096,
    compiled: bool = False,
) -> Tensor:
    """Weighted loss of one packed row; call it inside :func:`.packed_model.ready`.

    Args:
        model: Frozen causal language model.
        prefix: [n, d], requires a gradient.
        packed: B examples.
        weights: [B] float32, of one label token of each example.
        chunk: Most label tokens whose scores exist at once.
        compiled: Compile the softmax of the output layer.

    Returns:
        A float32 scalar.
    """
    embeds = embed_packed(model, packed, prefix)
    attention: dict[str, Any] = (
        {"cu_seq_lens_q": packed.bounds, "max_length_q": packed.longest}
        if can_use_kernel(embeds)
        else {"attention_mask": block_causal_mask(packed.bounds)}
    )
    states = decoder(model)(
        inputs_embeds=embeds[None],
        position_ids=packed.position_ids,
        use_cache=False,
        **attention,
    ).last_hidden_state[0, packed.predicting]
    return head_cross_entropy(
        states,
        model.get_output_embeddings(),  # type: ignore[no-untyped-call]
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
        ValueError: A slot without a prefix vector, vectors of another width than the model's, or a
            model of which a packed row would compute something else than its own forward pass.
    """
    unlike = unlike_plain_attention(model.config) or unlike_plain_head(model.config)
    if unlike:
        raise ValueError(f"examples cannot be packed for this model: {unlike}; use forward: padded")
    device = prefix.device
    vocabulary_size = vocabulary_rows(model)
    check_width(model, prefix)
    if max((max(e.ids) for e in examples), default=0) - vocabulary_size >= prefix.shape[0]:
        raise ValueError(
            f"an example has a slot beyond the {prefix.shape[0]} vectors of the prefix"
        )
    if low_memory:
        chunk = min(chunk, LOW_MEMORY_CHUNK)
    for group in even_groups([len(e.ids) for e in examples], rows):
        packed = pack([examples[i] for i in group], vocabulary_size, device)
        share = torch.tensor([weights[i] for i in group], dtype=torch.float32)
        if device.type == "cuda":
            share = share.pin_memory().to(device, non_blocking=True)
        with ready(model, compiled=compiled, low_memory=low_memory):
            # Inside, because the backward pass of low_memory runs the layers again. Without a name
            # here, because a name would keep the graph while the next one is made.
            yield packed_loss(model, prefix, packed, share, chunk=chunk, compiled=compiled)
