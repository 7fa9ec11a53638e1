"""One word, one token: the tokenizer of the miniature world in Hugging Face layout."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from kit.mini.injection.vocabulary import SPECIALS, UNKNOWN, words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer: words have ids 0..n-1 in the order of ``words()``, control tokens follow.

    Control tokens are not in the word-level model. Encoded with special-token parsing off, a text
    that spells one becomes the unknown word.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(words())}
    core = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    core.pre_tokenizer = WhitespaceSplit()
    core.add_special_tokens(list(SPECIALS))
    pad, begin, end, *turns = SPECIALS
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        pad_token=pad,
        bos_token=begin,
        eos_token=end,
        unk_token=UNKNOWN,
        additional_special_tokens=turns,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


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
