"""Gap closed: the printed ratios of the documents, the undefined case, and its interval."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.evals.gap import gap_closed

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
