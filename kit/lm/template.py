"""A chat format from a tokenizer's own template.

The template is rendered with marks in place of the texts, and cut at the marks and at the control
tokens. What remains is a format like any other: the caller's texts are tokenised on their own, so
a control token that untrusted data spells stays text, which ``apply_chat_template`` does not do.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kit.lm.chat import CONTENT, ChatFormat, Segment, Special, Text
from kit.lm.vocabulary import control_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# No text in angle brackets or capitals that a template could look for, nothing to be trimmed.
_MARKS = {"system": "kit-mark-s", "user": "kit-mark-u", "assistant": "kit-mark-a"}
DATE = "26 Jul 2024"
"""What the templates of Llama 3.1 and later write into the system turn where they know no date;
the day of the run must not decide numbers."""
INSTEAD = "give the format's own lines in the pin instead (chat_format)"


def template_format(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    """The format of ``tokenizer.chat_template``.

    The system turn carries the instruction, the user turn the data, the assistant turn the answer.

    Args:
        tokenizer: A fast tokenizer with a template.

    Raises:
        ValueError: No template; one that needs the day's date, knows no system turn alone, or
            writes an answer otherwise than it asks for one; no stop or padding token.
    """
    template = tokenizer.chat_template
    if not isinstance(template, str):
        raise ValueError(f"the tokenizer has no chat template; {INSTEAD}")
    if "strftime_now" in template and "date_string" not in template:
        raise ValueError(f"the chat template writes the day's date; {INSTEAD}")
    instruction = _render(tokenizer, "system")
    asked = _render(tokenizer, "system", "user")
    data = _behind(instruction, asked, "a user turn changes the system turn")
    generate = _behind(
        asked, _render(tokenizer, "system", "user", generate=True), "a prompt changes its turns"
    )
    answer = _behind(
        asked + generate,
        _render(tokenizer, "system", "user", "assistant"),
        "an answer stands elsewhere than where it was asked for",
    )
    asks = _cut(tokenizer, generate, None)
    begin, first = _begin(_cut(tokenizer, instruction, "system"), asks, tokenizer)
    response, stop = _response(_cut(tokenizer, answer, "assistant"))
    stops = tuple(dict.fromkeys(t for t in (stop, tokenizer.eos_token) if isinstance(t, str)))
    used = {segment.token for segment in (*begin, *first) if isinstance(segment, Special)}
    return ChatFormat(
        name="the tokenizer's own template",
        begin=begin,
        instruction=first,
        data=_cut(tokenizer, data, "user"),
        generate=asks,
        response=response,
        end=(Special(stop),),
        stop=stops,
        pad=_pad(tokenizer, {*stops, *used}),
    )


def _render(tokenizer: PreTrainedTokenizerBase, *roles: str, generate: bool = False) -> str:
    from jinja2 import TemplateError

    messages = [{"role": role, "content": _MARKS[role]} for role in roles]
    try:
        text: Any = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=generate, date_string=DATE
        )
    except TemplateError as error:
        turns = " and ".join(roles)
        raise ValueError(
            f"the chat template refuses the turns {turns} ({error}); {INSTEAD}"
        ) from None
    return str(text)


def _behind(start: str, whole: str, otherwise: str) -> str:
    if not whole.startswith(start):
        raise ValueError(f"in this chat template {otherwise}; {INSTEAD}")
    return whole[len(start) :]


def _cut(tokenizer: PreTrainedTokenizerBase, text: str, role: str | None) -> tuple[Segment, ...]:
    """Control tokens and texts, with the role's mark replaced by ``{content}``."""
    mark = _MARKS[role] if role else None
    if mark is not None and text.count(mark) != 1:
        raise ValueError(f"the chat template has no {role} turn of its own; {INSTEAD}")
    controls = control_tokens(tokenizer)
    longest_first = sorted(controls, key=len, reverse=True)
    pieces = re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)
    return tuple(
        Special(piece) if piece in controls else Text(piece.replace(mark or CONTENT, CONTENT))
        for piece in pieces
        if piece
    )


def _begin(
    segments: tuple[Segment, ...], asks: tuple[Segment, ...], tokenizer: PreTrainedTokenizerBase
) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    """The beginning-of-text token, if the template writes it, and the rest.

    A token that opens every turn is none, whatever the tokenizer calls it (SmolLM2).
    """
    token = Special(str(tokenizer.bos_token))
    begins = segments[:1] == (token,) and token not in asks
    return segments[:begins], segments[begins:]


def _response(segments: tuple[Segment, ...]) -> tuple[tuple[Segment, ...], str]:
    """The answer up to the control token that closes it, and that token."""
    for at, segment in enumerate(segments):
        if isinstance(segment, Special):
            return segments[:at], segment.token
    raise ValueError(f"no control token closes an answer in this chat template; {INSTEAD}")


def _pad(tokenizer: PreTrainedTokenizerBase, taken: set[str]) -> str:
    """The padding token, or another that the format does not need: what pads is masked."""
    own = [t for t in (tokenizer.pad_token, tokenizer.unk_token) if isinstance(t, str)]
    for token in (*own, *control_tokens(tokenizer)):
        if token not in taken:
            return token
    raise ValueError(f"the tokenizer has no token that could fill batches; {INSTEAD}")
