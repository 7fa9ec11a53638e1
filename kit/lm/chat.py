"""Chat formats as token ids.

Prompts are built from *segments*: a special token is inserted by its id, a text segment is
tokenised on its own with special-token parsing switched off. Two consequences:

* untrusted text that spells a control token ("<|eot_id|>") stays text (design page, "Safety");
* every consumer (trainer, transformers backend, vLLM backend) receives the same ids, so nobody
  adds a second beginning-of-text token behind our back (defensive_tokens.md, P1).

Formats are data: they belong to whoever defined them, and :mod:`kit.lm.formats` knows them by name,
reads them from plain values, or takes them from a tokenizer's own template. The ids never contain a
prefix: where one sits is the family's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Special:
    """A control token, written by name and looked up in the tokenizer's vocabulary.

    Attributes:
        token: Its name.
        or_text: Whether a tokenizer that lacks it spells it, together with the text behind it: what
            a template given as a string becomes.
    """

    token: str
    or_text: bool = False


@dataclass(frozen=True)
class Text:
    """A text segment; ``{content}`` is replaced by the (stripped) caller's text."""

    template: str


Segment = Special | Text
CONTENT = "{content}"
# How often the caller's text stands in each part of a format.
PARTS = {"begin": 0, "instruction": 1, "data": 1, "generate": 0, "response": 1, "end": 0}


@dataclass(frozen=True)
class ChatFormat:
    """How one instruction, its data and the response become token ids.

    Attributes:
        name: The name manifests use.
        begin: Segments in front of everything, such as the beginning-of-text token; may be empty.
        instruction: The trusted turn; contains ``{content}`` once.
        data: The untrusted turn; left out as a whole when there is no data.
        generate: Segments after which the model answers.
        response: The answer; contains ``{content}`` once.
        end: Segments that close the answer; left out after a truncated self-label.
        stop: Tokens at which generation stops.
        stop_if_known: More of them, for tokenizers that have them.
        pad: The padding token. Never equal to a stop token, because masks built by
            ``ids != pad`` would then hide the end of the answer (defensive_tokens.md, P15).
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
    stop_if_known: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a format whose prompts would lack a text, or whose masks would hide an answer."""
        for part, wanted in PARTS.items():
            segments: tuple[Segment, ...] = getattr(self, part)
            count = sum(s.template.count(CONTENT) for s in segments if isinstance(s, Text))
            if count != wanted:
                raise ValueError(
                    f"chat format {self.name!r}: {part} has {CONTENT} {count} times, not {wanted}"
                )
        if not self.stop:
            raise ValueError(f"chat format {self.name!r} names no stop token")
        if self.pad in (*self.stop, *self.stop_if_known):
            raise ValueError(
                f"chat format {self.name!r}: the padding token {self.pad!r} is a stop token; masks "
                "made by comparing with it would hide the end of the answer"
            )

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
        """Ids at which generation stops.

        Raises:
            ValueError: The tokenizer lacks a token of ``stop``: it is misspelt, or the format is
                another model's.
        """
        ids = [_required_id(tokenizer, token, self.name) for token in self.stop]
        more = (token_id(tokenizer, token) for token in self.stop_if_known)
        return ids + [i for i in more if i is not None]

    def pad_id(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Id used to fill batches."""
        return _required_id(tokenizer, self.pad, self.name)

    def _render(
        self, tokenizer: PreTrainedTokenizerBase, segments: tuple[Segment, ...], content: str
    ) -> list[int]:
        fixed = _FIXED.setdefault(tokenizer, {})

        def encode(text: str, *, keep: bool = True) -> list[int]:
            if text in fixed:
                return fixed[text]
            ids: list[int] = tokenizer.encode(
                text, add_special_tokens=False, split_special_tokens=True
            )
            if keep:
                fixed[text] = ids
            return ids

        ids: list[int] = []
        spelled = ""
        for segment in segments:
            if isinstance(segment, Text):
                filled = segment.template.replace(CONTENT, content.strip())
                ids += encode(spelled + filled, keep=CONTENT not in segment.template)
                spelled = ""
            elif segment.or_text and token_id(tokenizer, segment.token) is None:
                spelled += segment.token
            else:
                ids += [
                    *(encode(spelled) if spelled else ()),
                    _required_id(tokenizer, segment.token, self.name),
                ]
                spelled = ""
        return [*ids, *(encode(spelled) if spelled else ())]


# Asking a 128,256-word tokenizer for its vocabulary builds the whole dictionary, a good part of a
# second: it is asked once. All ids are kept, because a token's id never changes.
_VOCABULARIES: WeakKeyDictionary[PreTrainedTokenizerBase, dict[str, int]] = WeakKeyDictionary()
# The words of a template around its content, which are most of the texts of a prompt.
_FIXED: WeakKeyDictionary[PreTrainedTokenizerBase, dict[str, list[int]]] = WeakKeyDictionary()


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    """The id of a token by its exact spelling, or ``None`` when the vocabulary lacks it."""
    vocabulary = _VOCABULARIES.setdefault(tokenizer, {})
    if token not in vocabulary:
        vocabulary.update(tokenizer.get_vocab())
    known = vocabulary.get(token)
    return None if known is None else int(known)


def _required_id(tokenizer: PreTrainedTokenizerBase, token: str, name: str) -> int:
    known = token_id(tokenizer, token)
    if known is None:
        raise ValueError(
            f"chat format {name!r} needs the control token {token!r}, which this tokenizer lacks"
        )
    return known
