"""Word-level tokenizers in Hugging Face layout: one word, one token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def word_tokenizer(
    words: Sequence[str], unknown: str, specials: Sequence[str]
) -> PreTrainedTokenizerFast:
    """A tokenizer whose words have ids 0..n-1 in their order; control tokens follow.

    Control tokens are not in the word-level model. Encoded with special-token parsing off, a text
    that spells one becomes the unknown word.

    Args:
        words: The vocabulary, the unknown word included.
        unknown: The word that all others become.
        specials: Control tokens: padding, begin, end, then any others.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=unknown))
    core.pre_tokenizer = WhitespaceSplit()
    core.add_special_tokens(list(specials))
    pad, begin, end, *others = specials
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        pad_token=pad,
        bos_token=begin,
        eos_token=end,
        unk_token=unknown,
        additional_special_tokens=others,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
