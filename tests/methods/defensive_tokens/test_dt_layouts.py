"""Where the prefix slots stand in a prompt."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.lm.chat import Text
from kit.lm.prefix import slot_ids
from kit.methods.defensive_tokens.chat import LLAMA3
from kit.methods.defensive_tokens.layouts import LAYOUTS, begin_id, insert_slots
from kit.mini.chat import MINI
from tests.lm.tiny_world import llama3_tokenizer, mini_tokenizer

V = 64


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("before-bos", ["DT0", "DT1", "<|begin_of_text|>", "<|start_header_id|>"]),
        ("bos-before-and-after", ["<|begin_of_text|>", "DT0", "DT1", "<|begin_of_text|>"]),
        ("after-bos", ["<|begin_of_text|>", "DT0", "DT1", "<|start_header_id|>"]),
        ("before-two-bos", ["DT0", "DT1", "<|begin_of_text|>", "<|begin_of_text|>"]),
    ],
)
def test_layouts_on_a_llama3_prompt(layout, expected):
    tokenizer = llama3_tokenizer()
    vocabulary = len(tokenizer)
    prompt = LLAMA3.prompt_ids(tokenizer, "a", "b")
    begin = begin_id(LLAMA3, tokenizer)
    ids = insert_slots(layout, prompt, n=2, vocabulary_size=vocabulary, begin=begin)
    names = {vocabulary: "DT0", vocabulary + 1: "DT1"}
    shown = [names.get(i) or tokenizer.convert_ids_to_tokens(i) for i in ids[:4]]
    assert shown == expected
    # Every layout keeps the rest of the prompt and its order.
    assert ids[-(len(prompt) - 1) :] == prompt[1:]


@given(n=st.integers(0, 7), rest=st.lists(st.integers(0, V - 1), max_size=9))
def test_every_layout_holds_each_slot_once_in_order(n, rest):
    prompt = [1, *rest]
    for layout in LAYOUTS:
        ids = insert_slots(layout, prompt, n=n, vocabulary_size=V, begin=1)
        assert [i for i in ids if i >= V] == slot_ids(V, n)
        twice = layout in ("bos-before-and-after", "before-two-bos")
        assert len(ids) == len(prompt) + n + twice


def test_without_slots_the_doubled_begin_token_stays():
    doubled = insert_slots("bos-before-and-after", [1, 5], n=0, vocabulary_size=V, begin=1)
    assert doubled == [1, 1, 5]
    assert insert_slots("before-two-bos", [1, 5], n=0, vocabulary_size=V, begin=1) == [1, 1, 5]
    assert insert_slots("before-bos", [1, 5], n=0, vocabulary_size=V, begin=1) == [1, 5]


def test_unknown_layout_lists_the_known_ones():
    with pytest.raises(ValueError, match="before-bos, bos-before-and-after, after-bos"):
        insert_slots("end", [1], n=1, vocabulary_size=V, begin=1)


@pytest.mark.parametrize("prompt", [[], [5, 1]])
def test_a_prompt_must_start_with_the_begin_token(prompt):
    with pytest.raises(ValueError, match="must start"):
        insert_slots("before-bos", prompt, n=1, vocabulary_size=V, begin=1)


def test_a_format_without_begin_token_has_the_layout_that_needs_none():
    bare = replace(MINI, begin=())
    assert begin_id(bare, mini_tokenizer()) is None
    ids = insert_slots("before-bos", [5, 6], n=2, vocabulary_size=V, begin=None)
    assert ids == [V, V + 1, 5, 6]
    for layout in sorted(set(LAYOUTS) - {"before-bos"}):
        with pytest.raises(ValueError, match=f"{layout}' needs a beginning-of-text token"):
            insert_slots(layout, [5, 6], n=2, vocabulary_size=V, begin=None)


def test_a_format_that_begins_with_text_has_no_begin_token():
    worded = replace(MINI, begin=(Text("hi"),))
    with pytest.raises(ValueError, match="no beginning-of-text"):
        begin_id(worded, mini_tokenizer())
