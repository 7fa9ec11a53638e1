"""A prefix: n vectors in front of or between the tokens of a prompt, as both backends take it.

A prefix of n vectors occupies n *slots*. A slot is an id beyond the vocabulary: V, V+1, ... V+n-1
(128256..128260 for the released DefensiveTokens). One list of ids so serves the trainer, the
transformers backend, vLLM and the logs. Where the slots stand in a prompt is the family's choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.lm.model import embedding_matrix

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def slot_ids(vocabulary_size: int, n: int) -> list[int]:
    """The n ids behind the vocabulary."""
    return list(range(vocabulary_size, vocabulary_size + n))


def check_width(model: PreTrainedModel, prefix: Tensor) -> None:
    """Refuse a prefix that is not made of vectors of the model's width.

    Raises:
        ValueError: With both shapes.
    """
    width = embedding_matrix(model).shape[1]
    if prefix.ndim != 2 or prefix.shape[1] != width:
        raise ValueError(
            f"a prefix of shape {tuple(prefix.shape)} does not fit a model of width {width}"
        )


def embed(model: PreTrainedModel, ids: Tensor, prefix: Tensor | None) -> Tensor:
    """Input embeddings in which the slots carry the prefix vectors.

    Slot V+i takes ``prefix[i]``, moved to the model's device and dtype; that is differentiable, so
    an fp32 prefix can be trained under a bf16 model (defensive_tokens.md, P7). A prefix row stands
    for what the model's embedding module returns, behind any scaling that the module does.

    Args:
        model: A causal language model; gradients reach its embeddings only if it asks for them.
        ids: [B, T] int64, slots included.
        prefix: [n, d] of any floating dtype, or ``None`` when no id is a slot.

    Returns:
        [B, T, d] in the model's dtype.

    Raises:
        ValueError: A slot without a prefix row, or a prefix of the wrong width.
    """
    module = model.get_input_embeddings()
    vocabulary_size = embedding_matrix(model).shape[0]
    is_slot = ids >= vocabulary_size
    if prefix is None:
        if bool(is_slot.any()):
            raise ValueError("the prompt has prefix slots, but no prefix was given")
        return module(ids)  # type: ignore[no-any-return]
    check_width(model, prefix)
    rows = module(ids.masked_fill(is_slot, 0))
    where = is_slot.nonzero(as_tuple=True)
    slots = ids[where] - vocabulary_size
    if slots.numel() and int(slots.max()) >= prefix.shape[0]:
        raise ValueError(f"slot {int(slots.max())} in the prompt, but only {len(prefix)} vectors")
    return rows.index_put(where, prefix.to(rows.device, rows.dtype)[slots])  # type: ignore[no-any-return]
