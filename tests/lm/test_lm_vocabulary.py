"""Comparing vocabularies row by row."""

from __future__ import annotations

import pytest

from kit.lm.vocabulary import (
    check_rows,
    control_ids,
    control_tokens,
    renamed_control_ids,
)
from tests.lm.tiny_world import LLAMA3_CONTROL, llama3_tokenizer, mini_tokenizer


def test_equal_vocabularies_have_nothing_renamed():
    assert renamed_control_ids(llama3_tokenizer(), llama3_tokenizer()) == []


def test_a_renamed_control_token_is_reported_and_allowed():
    newer = llama3_tokenizer({"<|reserved_special_token_0|>": "<|finetune_right_pad_id|>"})
    older = llama3_tokenizer()
    expected = older.get_vocab()["<|reserved_special_token_0|>"]
    assert renamed_control_ids(older, newer) == [expected]


def test_control_tokens_behind_the_last_token_are_reported_and_allowed():
    """Qwen2.5 names rows that Qwen2 has without a name."""
    older, newer = mini_tokenizer(), mini_tokenizer()
    newer.add_special_tokens({"additional_special_tokens": ["<|fim_pad|>", "<|file_sep|>"]})
    added = [len(older), len(older) + 1]
    assert renamed_control_ids(older, newer) == added
    assert renamed_control_ids(newer, older) == added


def test_the_first_differing_text_token_is_named():
    with pytest.raises(ValueError, match=r"differ first at id \d+: 'zebra' in the source, 'ape'"):
        renamed_control_ids(mini_tokenizer(("zebra", "ox")), mini_tokenizer(("ape", "ox")))


def test_a_longer_vocabulary_differs():
    with pytest.raises(ValueError, match="None in the source, 'zebra' in the target"):
        renamed_control_ids(mini_tokenizer(), mini_tokenizer(("zebra",)))


def test_control_tokens_are_the_special_added_ones():
    tokenizer = llama3_tokenizer()
    assert control_tokens(tokenizer) == list(LLAMA3_CONTROL)
    assert control_ids(tokenizer) == {tokenizer.get_vocab()[t] for t in LLAMA3_CONTROL}


def test_fewer_rows_than_tokens_is_an_error_and_padding_rows_are_fine():
    tokenizer = mini_tokenizer()
    check_rows(len(tokenizer) + 64, tokenizer, "model")
    with pytest.raises(ValueError, match="model: 3 embedding rows"):
        check_rows(3, tokenizer, "model")
