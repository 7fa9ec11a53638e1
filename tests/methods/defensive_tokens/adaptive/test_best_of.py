"""The best of many texts: chosen and measured on different items, and honest about the maximum."""

from __future__ import annotations

import random
from itertools import combinations
from statistics import fmean

import pytest

from kit.methods.defensive_tokens.adaptive.best_of import any_of, best_of, by_texts, by_tries
from kit.tampering.worst_case import Halves, halves

DIVIDED = Halves((0, 1, 2), (3, 4, 5))
TEXTS = {"a": [1, 1, 0, 0, 0, 1], "b": [1, 0, 0, 1, 1, 1], "c": [0, 0, 0, 0, 0, 0]}


def test_it_is_chosen_on_one_half_and_measured_on_the_other() -> None:
    found = best_of(TEXTS, TEXTS, DIVIDED, 0.95)
    assert found.trial == "a"
    assert (found.choosing.k, found.measured.k, found.measured.n) == (2, 1, 3)
    assert (found.naive.k, found.naive.n) == (4, 6)
    assert found.low <= found.measured.value <= found.high


def test_a_blind_attacker_chooses_on_another_model() -> None:
    elsewhere = {"a": [0] * 6, "b": [1] * 6, "c": [0] * 6}
    found = best_of(elsewhere, TEXTS, DIVIDED, 0.95)
    assert found.trial == "b"
    assert found.measured.k == 3  # of the victim's labels


def test_what_the_victim_says_on_the_choosing_half_does_not_reach_a_blind_attacker() -> None:
    elsewhere = {"a": [0] * 6, "b": [1] * 6, "c": [0] * 6}
    other = {name: [1 - flag for flag in flags[:3]] + flags[3:] for name, flags in TEXTS.items()}
    assert by_texts(elsewhere, TEXTS, DIVIDED) == by_texts(elsewhere, other, DIVIDED)


def test_the_curve_over_texts_is_the_mean_over_all_choices() -> None:
    for n, value in by_texts(TEXTS, TEXTS, DIVIDED):
        chosen = [
            best_of({t: TEXTS[t] for t in some}, {t: TEXTS[t] for t in some}, DIVIDED, 0.95)
            for some in combinations(TEXTS, n)
        ]
        assert value == pytest.approx(fmean(one.measured.value for one in chosen))


def test_the_curve_over_tries_is_the_mean_over_all_choices() -> None:
    points = by_tries(TEXTS)
    assert [n for n, _ in points] == [1, 2, 3]
    for n, value in points:
        hits = [
            any(TEXTS[text][item] for text in some)
            for some in combinations(TEXTS, n)
            for item in range(6)
        ]
        assert value == pytest.approx(fmean(hits))
    assert points[-1][1] == pytest.approx(fmean(any_of(TEXTS)))


def test_texts_that_never_work_are_measured_at_zero_where_the_maximum_is_above_it() -> None:
    """Thirty texts that work by chance on 5 % of the items: the maximum says 9 and more."""
    rng, measured, naive, covered = random.Random(0), [], [], []
    for _ in range(200):
        texts = {str(t): [int(rng.random() < 0.05) for _ in range(104)] for t in range(30)}
        found = best_of(texts, texts, halves([str(i) for i in range(104)], seed=1), 0.95)
        measured.append(100 * found.measured.value)
        naive.append(100 * found.naive.value)
        covered.append(found.low <= 0.05 <= found.high)
    assert fmean(measured) == pytest.approx(5, abs=0.6)
    assert fmean(naive) > 9
    assert fmean(covered) >= 0.95


def test_models_attacked_with_different_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="different texts"):
        best_of({"a": [1, 0]}, {"b": [1, 0]}, Halves((0,), (1,)), 0.95)
