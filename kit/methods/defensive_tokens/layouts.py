"""Where the defensive prefix sits relative to the beginning-of-text token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kit.lm.chat import ChatFormat, Special, token_id
from kit.lm.prefix import slot_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BEFORE_BOS = "before-bos"
BOS_BEFORE_AND_AFTER = "bos-before-and-after"
AFTER_BOS = "after-bos"
BEFORE_TWO_BOS = "before-two-bos"
LAYOUTS = (BEFORE_BOS, BOS_BEFORE_AND_AFTER, AFTER_BOS, BEFORE_TWO_BOS)


def begin_id(chat_format: ChatFormat, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Id of the beginning-of-text token that the format's prompts start with; ``None`` without.

    Raises:
        ValueError: The format begins with something else than a control token of this tokenizer.
    """
    if not chat_format.begin:
        return None
    first = chat_format.begin[0]
    begin = token_id(tokenizer, first.token) if isinstance(first, Special) else None
    if begin is None:
        raise ValueError(f"chat format {chat_format.name!r} has no beginning-of-text token here")
    return begin


def insert_slots(
    layout: str, prompt: Sequence[int], *, n: int, vocabulary_size: int, begin: int | None
) -> list[int]:
    """Put n prefix slots into a prompt.

    Args:
        layout: ``before-bos`` gives ``[DT][BOS]...``: the paper's and the training layout (DTP,
            "Position"). ``bos-before-and-after`` gives ``[BOS][DT][BOS]...``: what string prompts
            become in vLLM, which adds its own begin token (defensive_tokens.md, P1). ``after-bos``
            gives ``[BOS][DT]...``; ``before-two-bos`` gives ``[DT][BOS][BOS]...``: what a
            tokenizer that adds its begin token may have made of the authors' training text (P1,
            unverified).
        prompt: Ids of ``ChatFormat.prompt_ids``.
        n: Number of slots. 0 is the undefended prompt *in the same harness*, so under
            ``bos-before-and-after`` the begin token still stands there twice, as under
            ``before-two-bos``.
        vocabulary_size: Rows of the model's own embedding matrix.
        begin: The id of the begin token that the prompt starts with; ``None`` where the format
            has none (Qwen2), which only ``before-bos`` can do without.

    Raises:
        ValueError: Unknown layout, one that needs a begin token and gets none, or a prompt that
            does not start with ``begin``.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    if begin is None:
        if layout != BEFORE_BOS:
            raise ValueError(
                f"layout {layout!r} needs a beginning-of-text token, and this chat format has none"
            )
        return [*slot_ids(vocabulary_size, n), *prompt]
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
