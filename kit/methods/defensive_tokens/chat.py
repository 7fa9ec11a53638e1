"""The prompt formats of the released DefensiveTokens (DT, setup.py)."""

from __future__ import annotations

from dataclasses import replace

from kit.lm.chat import ChatFormat, Segment, Special, Text
from kit.lm.formats import register_format


def _llama3_turn(role: str) -> tuple[Segment, ...]:
    return (
        Special("<|start_header_id|>"),
        Text(role),
        Special("<|end_header_id|>"),
        Text("\n{content}\n\n"),
        Special("<|eot_id|>"),
    )


# The template that the released DefensiveTokens were made for, not Meta's own: one newline after
# a header, two in front of <|eot_id|>, no date block (defensive_tokens.md, 2.4).
LLAMA3 = register_format(
    ChatFormat(
        name="llama3-defensive-tokens",
        begin=(Special("<|begin_of_text|>"),),
        instruction=_llama3_turn("system"),
        data=_llama3_turn("user"),
        generate=(
            Special("<|start_header_id|>"),
            Text("assistant"),
            Special("<|end_header_id|>"),
            Text("\n"),
        ),
        response=(Text("{content}\n\n"),),
        end=(Special("<|eot_id|>"),),
        stop=("<|eot_id|>", "<|end_of_text|>"),
        stop_if_known=("<|eom_id|>",),  # of Llama 3.1
        pad="<|reserved_special_token_0|>",
    )
)


def _qwen_turn(role: str) -> tuple[Segment, ...]:
    return (
        Special("<|im_start|>"),
        Text(f"{role}\n{{content}}\n\n"),
        Special("<|im_end|>"),
        Text("\n"),
    )


# As Qwen's own template, with two line breaks in front of the end of a turn and no default system
# prompt; no begin token.
QWEN25 = register_format(
    ChatFormat(
        name="qwen2.5-defensive-tokens",
        begin=(),
        instruction=_qwen_turn("system"),
        data=_qwen_turn("user"),
        generate=(Special("<|im_start|>"), Text("assistant\n")),
        response=(Text("{content}\n\n"),),
        end=(Special("<|im_end|>"),),
        stop=("<|im_end|>", "<|endoftext|>"),
        pad="<|fim_pad|>",
    )
)
# The older Qwen2 has three control tokens and none of them is for padding.
QWEN2 = register_format(replace(QWEN25, name="qwen2-defensive-tokens", pad="<|im_start|>"))


def _falcon3_turn(role: str) -> tuple[Segment, ...]:
    return (Special(f"<|{role}|>", or_text=True), Text("\n{content}\n\n"))


# Turns have no end of their own; whether their names are control tokens is the tokenizer's matter.
FALCON3 = register_format(
    ChatFormat(
        name="falcon3-defensive-tokens",
        begin=(),
        instruction=_falcon3_turn("system"),
        data=_falcon3_turn("user"),
        generate=(Special("<|assistant|>", or_text=True), Text("\n")),
        response=(Text("{content}\n\n"),),
        end=(Special("<|endoftext|>"),),
        stop=("<|endoftext|>",),
        pad="<|pad|>",
    )
)
