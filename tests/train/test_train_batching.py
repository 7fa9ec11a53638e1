"""Right-padded batches and the split into forward passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.train.batching import IGNORE, Example, collate, even_groups, forward_groups


def test_collate_pads_on_the_right_and_labels_the_answer_only():
    batch = collate([Example("a", (7, 8, 9, 2), 2), Example("b", (5, 6), 1)], pad_id=0)
    assert batch.ids.tolist() == [[7, 8, 9, 2], [5, 6, 0, 0]]
    assert batch.labels.tolist() == [[IGNORE, IGNORE, 9, 2], [IGNORE, 6, IGNORE, IGNORE]]
    assert batch.attention_mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3]] * 2
    assert batch.item_ids == ("a", "b")


def test_a_real_token_that_equals_the_padding_id_is_kept():
    batch = collate([Example("a", (0, 0, 0), 1), Example("b", (5, 6, 7, 8), 1)], pad_id=0)
    assert batch.attention_mask[0].tolist() == [True, True, True, False]
    assert batch.labels[0].tolist() == [IGNORE, 0, 0, IGNORE]


@pytest.mark.parametrize("prompt_length", [-1, 0, 3])
def test_an_example_needs_a_prompt_no_longer_than_itself(prompt_length):
    with pytest.raises(ValueError, match="example x"):
        Example("x", (1, 2), prompt_length)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        collate([], pad_id=0)


@given(lengths=st.lists(st.integers(1, 50), max_size=40), rows=st.integers(1, 9))
def test_groups_partition_the_step(lengths, rows):
    for by_length in (True, False):
        groups = forward_groups(lengths, rows, by_length=by_length)
        assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
        assert all(1 <= len(group) <= rows for group in groups)


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40), rows=st.integers(1, 9))
def test_grouping_by_length_never_pads_more_when_groups_are_full(lengths, rows):
    lengths = lengths * rows

    def padded(by_length):
        groups = forward_groups(lengths, rows, by_length=by_length)
        return sum(len(group) * max(lengths[i] for i in group) for group in groups)

    assert padded(True) <= padded(False)


def test_no_rows_is_refused():
    for split in (forward_groups, even_groups):
        with pytest.raises(ValueError, match="at least one row"):
            split([1], 0)


@given(lengths=st.lists(st.integers(1, 50), max_size=40), rows=st.integers(1, 9))
def test_even_groups_partition_the_step_into_as_few_passes(lengths, rows):
    groups = even_groups(lengths, rows)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(1 <= len(group) <= rows for group in groups)
    assert len(groups) == len(forward_groups(lengths, rows))


def test_no_pass_gets_all_the_long_examples():
    lengths = [*range(100, 132)] + [10] * 96
    tokens = [sum(lengths[i] for i in group) for group in even_groups(lengths, 16)]
    assert max(tokens) - min(tokens) <= 10
    together = [sum(lengths[i] for i in group) for group in forward_groups(lengths, 16)]
    assert max(together) > 3 * max(tokens)
