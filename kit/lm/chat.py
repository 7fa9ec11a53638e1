"""Chat formats as token ids.

Prompts are built from *segments*: a special token is inserted by its id, a text segment is
tokenised on its own with special-token parsing switched off. Two consequences:

* untrusted text that spells a control token ("<|eot_id|>") stays text (design page, "Safety");
* every consumer (trainer, transformers backend, vLLM backend) receives the same ids, so nobody
  adds a second beginning-of-text token behind our back (reference page, pitfall P1).

The ids never contain the defensive prefix. Where the prefix sits relative to the
beginning-of-text token is a *layout*, applied by the caller (see ``kit.lm.prefix``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Special:
    """A control token, written by name and looked up in the tokenizer's vocabulary."""

    token: str


@dataclass(frozen=True)
class Text:
    """A text segment; ``{content}`` is replaced by the (stripped) caller's text."""

    template: str


Segment = Special | Text


@dataclass(frozen=True)
class ChatFormat:
    """How one instruction, its data and the response become token ids.

    Attributes:
        name: The name manifests use.
        begin: Segments in front of everything (the beginning-of-text token).
        instruction: The trusted turn; contains one ``{content}``.
        data: The untrusted turn; left out as a whole when there is no data.
        generate: Segments after which the model answers.
        response: The answer; contains one ``{content}``.
        end: Segments that close the answer; left out after a truncated self-label.
        stop: Tokens at which generation stops.
        pad: The padding token. Never equal to a stop token, because masks built by
            ``ids != pad`` would then hide the end of the answer (pitfall P15).
    """

    name: str
    begin: tuple[Segment, ...]
    instruction: tuple[Segment, ...]
    data: tuple[Segment, ...]
    generate: tuple[Segment, ...]
    response: tuple[Segment, ...]
    end: tuple[Segment, ...]
    stop: tuple[str, ...]
    pad: str

    def prompt_ids(
        self, tokenizer: PreTrainedTokenizerBase, instruction: str, data: str | None
    ) -> list[int]:
        """Token ids up to the point where the model answers.

        Args:
            tokenizer: A fast tokenizer that knows this format's control tokens.
            instruction: The trusted instruction.
            data: The untrusted data; ``None`` leaves the data turn out, ``""`` renders it empty.

        Raises:
            ValueError: The tokenizer lacks one of the format's control tokens.
        """
        ids = self._render(tokenizer, self.begin, "")
        ids += self._render(tokenizer, self.instruction, instruction)
        if data is not None:
            ids += self._render(tokenizer, self.data, data)
        return ids + self._render(tokenizer, self.generate, "")

    def response_ids(
        self, tokenizer: PreTrainedTokenizerBase, text: str, *, end: bool = True
    ) -> list[int]:
        """Token ids of an answer, closed by the end tokens unless ``end`` is false."""
        ids = self._render(tokenizer, self.response, text)
        return ids + self._render(tokenizer, self.end, "") if end else ids

    def end_ids(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Ids of the tokens that close an answer."""
        return self._render(tokenizer, self.end, "")

    def stop_ids(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Ids at which generation stops; tokens the vocabulary lacks are skipped."""
        ids = (token_id(tokenizer, token) for token in self.stop)
        return [i for i in ids if i is not None]

    def pad_id(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Id used to fill batches."""
        return _required_id(tokenizer, self.pad, self.name)

    def _render(
        self, tokenizer: PreTrainedTokenizerBase, segments: tuple[Segment, ...], content: str
    ) -> list[int]:
        ids: list[int] = []
        for segment in segments:
            if isinstance(segment, Special):
                ids.append(_required_id(tokenizer, segment.token, self.name))
            else:
                text = segment.template.replace("{content}", content.strip())
                ids += tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return ids


# Asking a 128,256-word tokenizer for its vocabulary builds the whole dictionary, a good part of a
# second; a prompt needs about ten ids. Found ids are kept, because a token's id never changes.
_FOUND: WeakKeyDictionary[PreTrainedTokenizerBase, dict[str, int]] = WeakKeyDictionary()


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    """The id of a token by its exact spelling, or ``None`` when the vocabulary lacks it."""
    found = _FOUND.setdefault(tokenizer, {})
    if token not in found:
        known = tokenizer.get_vocab().get(token)
        if known is None:
            return None
        found[token] = int(known)
    return found[token]


def _required_id(tokenizer: PreTrainedTokenizerBase, token: str, name: str) -> int:
    known = token_id(tokenizer, token)
    if known is None:
        raise ValueError(
            f"chat format {name!r} needs the control token {token!r}, which this tokenizer lacks"
        )
    return known


def _llama3_turn(role: str) -> tuple[Segment, ...]:
    return (
        Special("<|start_header_id|>"),
        Text(role),
        Special("<|end_header_id|>"),
        Text("\n{content}\n\n"),
        Special("<|eot_id|>"),
    )


# The template that the released DefensiveTokens were made for, not Meta's own: one newline after
# a header, two in front of <|eot_id|>, no date block (reference page, section 2.4).
LLAMA3_DEFENSIVE_TOKENS = ChatFormat(
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
    stop=("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"),
    pad="<|reserved_special_token_0|>",
)

# The miniature world's format: word-level tokens, one control token a turn.
MINI = ChatFormat(
    name="mini",
    begin=(Special("<s>"),),
    instruction=(Special("[INST]"), Text("{content}")),
    data=(Special("[DATA]"), Text("{content}")),
    generate=(Special("[RESP]"),),
    response=(Text("{content}"),),
    end=(Special("</s>"),),
    stop=("</s>",),
    pad="<pad>",
)

FORMATS = {chat_format.name: chat_format for chat_format in (LLAMA3_DEFENSIVE_TOKENS, MINI)}


def get_format(name: str) -> ChatFormat:
    """The chat format of this name.

    Raises:
        ValueError: Unknown name; the message lists the known ones.
    """
    try:
        return FORMATS[name]
    except KeyError:
        raise ValueError(f"unknown chat format {name!r}; known: {', '.join(FORMATS)}") from None
