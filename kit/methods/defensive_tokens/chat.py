"""The prompt format of the released DefensiveTokens."""

from __future__ import annotations

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
