"""Prompts in which the end of the untrusted data is searched for, as token ids and as text.

An attacker sends text. A suffix is therefore worth something only if its text, tokenised with the
whole prompt around it, becomes the ids that were searched; :meth:`Prompter.can_be_written` asks
that, and every measurement starts from the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.lm.chat import ChatFormat
from kit.lm.vocabulary import control_ids
from kit.methods.defensive_tokens.layouts import begin_id, insert_slots
from kit.methods.defensive_tokens.samples import Sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class OpenPrompt:
    """A prompt around a suffix.

    Attributes:
        sample: Whose instruction it asks.
        data: The data turn up to the suffix, as text.
        before: Ids in front of the suffix, prefix slots included.
        start: Ids of the first suffix.
        after: Ids behind it, up to where the model answers.
    """

    sample: Sample
    data: str
    before: tuple[int, ...]
    start: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Prompter:
    """Makes the prompts of a model with a prefix of a given length, or without.

    Attributes:
        tokenizer: Of the model.
        chat: Format of the prompts.
        layout: Where the prefix stands.
        slots: Vectors of the prefix; 0 without.
        vocabulary_size: Rows of the model's own embedding matrix.
    """

    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat
    layout: str
    slots: int
    vocabulary_size: int

    def ids(self, sample: Sample, data: str) -> list[int]:
        """The prompt with this data turn."""
        return insert_slots(
            self.layout,
            self.chat.prompt_ids(self.tokenizer, sample.instruction, data),
            n=self.slots,
            vocabulary_size=self.vocabulary_size,
            begin=begin_id(self.chat, self.tokenizer),
        )

    def opened(self, sample: Sample, data: str, *, filler: str, length: int) -> OpenPrompt:
        """A prompt whose data end in a suffix of ``length`` times the filler.

        Args:
            sample: Whose instruction is asked.
            data: The data turn up to the suffix.
            filler: A word that is a single token wherever it stands.
            length: Tokens of the suffix.

        Raises:
            ValueError: The filler is not a token of its own everywhere in the suffix, because the
                tokenizer joins it with what stands beside it.
        """
        ids = self.ids(sample, " ".join([data, *[filler] * length]))
        known = self.tokenizer.encode(f" {filler}", add_special_tokens=False)
        run = known * length
        starts = [i for i in range(len(ids) - len(run), -1, -1) if ids[i : i + len(run)] == run]
        if len(known) != 1 or not starts:
            raise ValueError(
                f"the filler {filler!r} does not become {length} equal tokens at the end of the "
                "data: take a word that the tokenizer joins with nothing"
            )
        first = starts[0]
        end = first + length
        return OpenPrompt(sample, data, tuple(ids[:first]), tuple(run), tuple(ids[end:]))

    def data(self, prompt: OpenPrompt, suffix: tuple[int, ...]) -> str:
        """The data turn with a suffix, as the attacker writes it."""
        text = str(self.tokenizer.decode(list(suffix), clean_up_tokenization_spaces=False))
        return prompt.data + (text if text.startswith(" ") else f" {text}")

    def can_be_written(self, prompt: OpenPrompt, suffix: tuple[int, ...]) -> bool:
        """Whether the text of a suffix becomes these very ids again."""
        ids = self.ids(prompt.sample, self.data(prompt, suffix))
        return ids == [*prompt.before, *suffix, *prompt.after]


def searchable_ids(tokenizer: PreTrainedTokenizerBase, vocabulary_size: int) -> list[int]:
    """Ids that an attacker can spell: visible ASCII text that becomes this id again.

    Control tokens are none: formats never read them out of text (:mod:`kit.lm.chat`). ASCII only,
    as in SecAlign's harness (test.py at 3fc9c9c: ``allow_non_ascii`` off).

    Args:
        tokenizer: Of the model.
        vocabulary_size: Ids from here on have no embedding row.
    """
    barred = control_ids(tokenizer) | {tokenizer.unk_token_id}
    known = sorted({int(i) for i in tokenizer.get_vocab().values()} - barred)
    ids = [i for i in known if i < vocabulary_size]
    texts = tokenizer.batch_decode([[i] for i in ids], clean_up_tokenization_spaces=False)
    seen = [
        (i, text)
        for i, text in zip(ids, texts, strict=True)
        if text.strip() and text.isascii() and text.isprintable()
    ]
    again = tokenizer(
        [text for _, text in seen], add_special_tokens=False, split_special_tokens=True
    )["input_ids"]
    return [i for (i, _), back in zip(seen, again, strict=True) if back == [i]]
