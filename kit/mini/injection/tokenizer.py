"""One word, one token: the tokenizer of the miniature world in Hugging Face layout."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from kit.mini.injection.vocabulary import SPECIALS, UNKNOWN, words
from kit.mini.tokenizer import word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer: words have ids 0..n-1 in the order of ``words()``, control tokens follow."""
    return word_tokenizer(words(), UNKNOWN, SPECIALS)


def save_tokenizer(folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` into ``folder``."""
    build_tokenizer().save_pretrained(folder)


class QuickTokenizer:
    """The same ids by dictionary look-up, for the hundred thousand texts of one pretraining.

    Offers just what ``kit.lm.chat`` asks of a tokenizer; a test holds it equal to the real one.
    """

    def __init__(self) -> None:
        ordered = words()
        self._words = {word: index for index, word in enumerate(ordered)}
        self._all = self._words | {
            token: len(ordered) + index for index, token in enumerate(SPECIALS)
        }

    def get_vocab(self) -> dict[str, int]:
        return self._all

    def encode(
        self, text: str, *, add_special_tokens: bool = False, split_special_tokens: bool = True
    ) -> list[int]:
        """Token ids of plain words.

        Raises:
            ValueError: The text has a word outside the vocabulary.
        """
        assert not add_special_tokens
        assert split_special_tokens
        try:
            return [self._words[word] for word in text.split()]
        except KeyError as error:
            raise ValueError(f"word {error.args[0]!r} is not in the miniature vocabulary") from None


@cache
def quick_tokenizer() -> PreTrainedTokenizerBase:
    """A ``QuickTokenizer``, typed as what ``kit.lm.chat`` expects."""
    return cast("PreTrainedTokenizerBase", QuickTokenizer())
