"""Where the defensive prefix sits, and how its vectors reach the model.

A prefix of n vectors occupies n *slots*. A slot is an id beyond the vocabulary: V, V+1, ... V+n-1
(128256..128260 for the released tokens; reference page, section 2.4). One list of ids so serves the
trainer, the transformers backend, vLLM and the logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kit.lm.chat import ChatFormat, Special, token_id
from kit.lm.model import embedding_matrix

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BEFORE_BOS = "before-bos"
BOS_BEFORE_AND_AFTER = "bos-before-and-after"
AFTER_BOS = "after-bos"
BEFORE_TWO_BOS = "before-two-bos"
LAYOUTS = (BEFORE_BOS, BOS_BEFORE_AND_AFTER, AFTER_BOS, BEFORE_TWO_BOS)


def begin_id(chat_format: ChatFormat, tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the beginning-of-text token that the format's prompts start with.

    Raises:
        ValueError: The format does not begin with one control token of this tokenizer.
    """
    first = chat_format.begin[0] if chat_format.begin else None
    begin = token_id(tokenizer, first.token) if isinstance(first, Special) else None
    if begin is None:
        raise ValueError(f"chat format {chat_format.name!r} has no beginning-of-text token here")
    return begin


def slot_ids(vocabulary_size: int, n: int) -> list[int]:
    """The n ids behind the vocabulary."""
    return list(range(vocabulary_size, vocabulary_size + n))


def place(
    layout: str, prompt: Sequence[int], *, n: int, vocabulary_size: int, begin: int
) -> list[int]:
    """Put n prefix slots into a prompt that starts with the beginning-of-text token.

    Args:
        layout: ``before-bos`` gives ``[DT][BOS]...``: the paper's and the training layout (DTP,
            "Position"). ``bos-before-and-after`` gives ``[BOS][DT][BOS]...``: what string prompts
            become in vLLM, which adds its own begin token (pitfall P1). ``after-bos`` gives
            ``[BOS][DT]...``; ``before-two-bos`` gives ``[DT][BOS][BOS]...``: what a tokenizer that
            adds its begin token may have made of the authors' training text (P1, unverified).
        prompt: Ids of ``ChatFormat.prompt_ids``.
        n: Number of slots. 0 is the undefended prompt *in the same harness*, so under
            ``bos-before-and-after`` the begin token still stands there twice, as under
            ``before-two-bos``.
        vocabulary_size: Rows of the model's own embedding matrix.
        begin: The begin token's id.

    Raises:
        ValueError: Unknown layout, or the prompt does not start with ``begin``.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    if not prompt or prompt[0] != begin:
        raise ValueError(f"a prompt must start with the beginning-of-text token {begin}")
    slots = slot_ids(vocabulary_size, n)
    if layout == BEFORE_BOS:
        return [*slots, *prompt]
    if layout == BOS_BEFORE_AND_AFTER:
        return [begin, *slots, *prompt]
    if layout == BEFORE_TWO_BOS:
        return [*slots, begin, *prompt]
    return [begin, *slots, *prompt[1:]]


def embed(model: PreTrainedModel, ids: Tensor, prefix: Tensor | None) -> Tensor:
    """Input embeddings in which the slots carry the prefix vectors.

    Slot V+i takes ``prefix[i]``, moved to the model's device and dtype; that is differentiable, so
    an fp32 prefix can be trained under a bf16 model (pitfall P7). A prefix row stands for what the
    model's embedding module returns, behind any scaling that the module does.

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
    vocabulary_size, width = embedding_matrix(model).shape
    is_slot = ids >= vocabulary_size
    if prefix is None:
        if bool(is_slot.any()):
            raise ValueError("the prompt has prefix slots, but no prefix was given")
        return module(ids)  # type: ignore[no-any-return]
    if prefix.ndim != 2 or prefix.shape[1] != width:
        raise ValueError(
            f"a prefix of shape {tuple(prefix.shape)} does not fit a model of width {width}"
        )
    rows = module(ids.masked_fill(is_slot, 0))
    where = is_slot.nonzero(as_tuple=True)
    slots = ids[where] - vocabulary_size
    if slots.numel() and int(slots.max()) >= prefix.shape[0]:
        raise ValueError(f"slot {int(slots.max())} in the prompt, but only {len(prefix)} vectors")
    return rows.index_put(where, prefix.to(rows.device, rows.dtype)[slots])  # type: ignore[no-any-return]
