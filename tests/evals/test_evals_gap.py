"""Gap closed: the printed ratios of the documents, the undefined case, and its interval."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.evals.gap import bootstrap_interval, fieller_interval, gap_closed
from kit.evals.proportion import Proportion

NONE, PUBLISHED, N = 69.2, 0.5, 208
MEASURED = 100 * 4 / N  # printed as 1.9


@pytest.mark.parametrize(
    ("k", "asr", "published", "measured"),
    [
        (70, "33.7", "0.517", "0.528"),  # Procrustes only (transfer note, Key Results)
        (4, "1.9", "0.979", "1.000"),  # step 200 (both notes)
        (5, "2.4", "0.972", None),  # steps 25 and 100 (tiny-adapt note, Key Results)
        (10, "4.8", "0.937", None),  # step 50
    ],
)
def test_the_documents_ratios_follow_from_their_counts(k, asr, published, measured):
    rate = 100 * k / N
    assert f"{rate:.1f}" == asr
    assert f"{gap_closed(NONE, rate, PUBLISHED):.3f}" == published
    if measured is not None:
        assert f"{gap_closed(NONE, rate, MEASURED):.3f}" == measured


def test_the_printed_rates_alone_give_other_last_digits():
    """The notes computed ratios before rounding; from the printed rates two differ by 0.001."""
    assert f"{gap_closed(NONE, 33.7, 1.9):.3f}" == "0.527"
    assert f"{gap_closed(NONE, 1.9, PUBLISHED):.3f}" == "0.980"


def test_percent_and_fractions_agree():
    assert gap_closed(69.2, 33.7, 0.5) == pytest.approx(gap_closed(0.692, 0.337, 0.005))


def test_without_a_gap_the_ratio_is_undefined():
    assert gap_closed(5.0, 1.0, 5.0) is None


def test_the_ratio_leaves_zero_to_one():
    assert gap_closed(50, 60, 0) == pytest.approx(-0.2)
    assert gap_closed(50, 0, 5) > 1


@given(st.floats(0.2, 1), st.floats(0, 0.1))
def test_end_points(none, full):
    assert gap_closed(none, none, full) == 0
    assert gap_closed(none, full, full) == pytest.approx(1)


def test_fieller_contains_the_estimate_and_narrows_with_n():
    narrow = fieller_interval(Proportion(1440, 2080), Proportion(700, 2080), Proportion(40, 2080))
    wide = fieller_interval(Proportion(144, 208), Proportion(70, 208), Proportion(4, 208))
    estimate = gap_closed(144 / 208, 70 / 208, 4 / 208)
    assert wide.kind == narrow.kind == "bounded"
    assert wide.low < narrow.low < estimate < narrow.high < wide.high


def test_fieller_against_simulation():
    """The interval of one observed triple covers the truth about as often as it says."""
    rng = random.Random(0)
    truth = {"none": 0.7, "x": 0.3, "full": 0.05}
    ratio, covered, runs = gap_closed(**truth), 0, 400
    for _ in range(runs):
        counts = {
            name: Proportion(sum(rng.random() < p for _ in range(208)), 208)
            for name, p in truth.items()
        }
        interval = fieller_interval(**counts)
        covered += interval.low <= ratio <= interval.high
    assert 0.92 <= covered / runs <= 0.99


def test_fieller_says_when_the_gap_itself_is_not_there():
    interval = fieller_interval(Proportion(5, 208), Proportion(3, 208), Proportion(4, 208))
    assert interval.kind in ("unbounded", "exclusive")


def test_fieller_unbounded_without_any_difference():
    same = Proportion(10, 208)
    interval = fieller_interval(same, same, same)
    assert interval.kind == "unbounded"
    assert (interval.low, interval.high) == (-math.inf, math.inf)


def labels(rate, n=208, seed=0):
    rng = random.Random(seed)
    return [[rng.random() < rate for _ in range(n)] for _ in range(3)]


def test_bootstrap_is_seeded_and_contains_the_estimate():
    none, x, full = labels(0.7), labels(0.3, seed=1), labels(0.03, seed=2)
    interval = bootstrap_interval(none, x, full, seed=1)
    assert interval == bootstrap_interval(none, x, full, seed=1)
    assert interval != bootstrap_interval(none, x, full, seed=2)
    best = [max(sum(variant) for variant in part) / 208 for part in (none, x, full)]
    assert interval.low < gap_closed(*best) < interval.high


def test_bootstrap_of_identical_conditions_is_exactly_one():
    none, full = labels(0.7), labels(0.03, seed=2)
    interval = bootstrap_interval(none, full, full, seed=0)
    assert (interval.low, interval.high) == (1.0, 1.0)


def test_bootstrap_refuses_unequal_prompts_and_a_missing_gap():
    with pytest.raises(ValueError, match="same prompts"):
        bootstrap_interval(labels(0.7), labels(0.3, n=100), labels(0.1), seed=0)
    zero = [[False] * 5]
    with pytest.raises(ValueError, match="no resample"):
        bootstrap_interval(zero, zero, zero, seed=0)
