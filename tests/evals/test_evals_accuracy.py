"""Exact match and generation statistics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.evals.accuracy import exact_labels, normalise
from kit.evals.generation_stats import generation_stats


@pytest.mark.parametrize(
    ("response", "reference", "equal"),
    [
        ("Cat  dog", "cat dog", True),
        (" cat dog.\n", "cat dog", True),
        ("cat dog", "dog cat", False),
        ("cat", "cat dog", False),
        ("cat .", "cat", True),
    ],
)
def test_exact_labels(response, reference, equal):
    assert exact_labels([response], [reference]) == [equal]


@given(st.text())
def test_normalising_is_idempotent_on_words(text):
    once = normalise(text)
    assert normalise(once) == normalise(normalise(once))


def test_unequal_numbers_are_refused():
    with pytest.raises(ValueError, match="1 responses, 2 references"):
        exact_labels(["a"], ["a", "b"])


def test_generation_stats():
    stats = generation_stats(["cat", "", " \n", "cat"], [1, 0, 3, 2], ["stop"] * 3 + ["length"])
    assert stats.mean_tokens == 1.5
    assert stats.median_tokens == 1.5
    assert stats.max_tokens == 3
    assert (stats.empty.k, stats.empty.n) == (2, 4)
    assert stats.truncated.k == 1
    assert stats.distinct == 3


def test_generation_stats_refuse_nothing_and_misfits():
    with pytest.raises(ValueError, match="no responses"):
        generation_stats([], [], [])
    with pytest.raises(ValueError, match="differ in number"):
        generation_stats(["a"], [1, 2], ["stop"])
