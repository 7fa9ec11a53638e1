"""Intervals of proportions at their ends, their inversion, ratios, and numbers for sentences."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from math import inf, sqrt
from typing import Any

import pytest
from scipy import stats

from kit.verify.junit import _clean, document
from kit.verify.numbers import exact as decimal
from kit.verify.numbers import places, points, printed, rounded, scale_of, show, show_p, some
from kit.verify.proportions import (
    UNBOUNDED,
    Z90,
    Z95,
    Ratio,
    Term,
    clopper_pearson,
    mover,
    mover_score,
    mover_tails,
    ratio_difference,
    shrunk_sd,
    wilson,
)
from kit.verify.special import (
    beta_quantile,
    binomial_at_least,
    binomial_at_most,
    normal_quantile,
    normal_tail,
    root,
    t_quantile,
    t_tail,
)
from tests.verify.builders import expected_cell, run, share


@pytest.mark.parametrize("z", [Z90, Z95])
def test_limits_at_the_ends_are_exactly_0_and_1(z: float) -> None:
    for n in range(1, 300):
        assert wilson(0.0, n, z)[0] == 0.0
        assert wilson(1.0, n, z)[1] == 1.0
        assert wilson(0.0, n, z)[1] == pytest.approx(z * z / (n + z * z))
        assert wilson(1.0, n, z)[0] == pytest.approx(n / (n + z * z))
        assert clopper_pearson(0, n, 0.9)[0] == 0.0
        assert clopper_pearson(n, n, 0.9)[1] == 1.0


@pytest.mark.parametrize(("k", "n"), [(1.5, 7.0), (0.5, 7.0), (6.5, 7.0)])
def test_a_fractional_count_has_exact_limits_by_its_beta(k: float, n: float) -> None:
    low, high = clopper_pearson(k, n, 0.9)
    assert low == pytest.approx(stats.beta.ppf(0.05, k, n - k + 1))
    assert high == pytest.approx(stats.beta.ppf(0.95, k + 1, n - k))


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weight", [2.0, -2.0])
def test_a_known_proportion_has_no_width(p: float, weight: float) -> None:
    terms = (Term(weight, p, inf),)
    assert mover(terms, Z95) == (weight * p, weight * p)
    low, high = mover((*terms, Term(1, 0.5, 10)), Z95)
    assert (low, high) == pytest.approx([weight * p + end for end in wilson(0.5, 10, Z95)])


@pytest.mark.parametrize("together", [-0.3, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, -1.0), (-1.0, -0.5), (2.0, -0.5)])
def test_a_sum_moves_by_the_moves_of_its_terms(
    weights: tuple[float, float], together: float
) -> None:
    """Zou and Donner's limits, written out for two terms."""
    shares, sizes = (0.3, 0.1), (50, 80)
    ends = [wilson(p, n, Z95) for p, n in zip(shares, sizes, strict=True)]
    middle = sum(w * p for w, p in zip(weights, shares, strict=True))
    wanted = []
    for sign in (-1, 1):
        d = [abs(w) * abs(p - end[(sign * w > 0)]) for w, p, end in
             zip(weights, shares, ends, strict=True)]  # fmt: skip
        alike = 1 if weights[0] * weights[1] > 0 else -1
        wanted.append(
            middle + sign * sqrt(d[0] ** 2 + d[1] ** 2 + 2 * alike * together * d[0] * d[1])
        )
    terms = [Term(w, p, n) for w, p, n in zip(weights, shares, sizes, strict=True)]
    assert mover(terms, Z95, ((1.0, together), (together, 1.0))) == pytest.approx(wanted)
    if together == 0:
        assert mover(terms, Z95) == pytest.approx(wanted)


def test_correlated_terms_that_cancel_have_no_width_left() -> None:
    """Rounding leaves a square below 0, which is none."""
    for p in (0.1, 0.3, 0.37):
        terms = [Term(1, p, 50), Term(-1, p, 50)]
        low, high = mover(terms, Z95, ((1.0, 1.0), (1.0, 1.0)))
        reach = abs(wilson(p, 50, Z95)[1] - p - (p - wilson(p, 50, Z95)[0]))
        assert (low, high) == pytest.approx((-reach, reach), abs=1e-9)
    assert mover([Term(1, 0.5, 50), Term(-1, 0.5, 50)], Z95, ((1.0, 1.1), (1.1, 1.0))) == (0, 0)


def test_a_sum_at_the_value_scores_0_and_far_from_it_without_doubt() -> None:
    assert mover_score((Term(1, 0.5, 10), Term(-1, 0.5, 10)), 0.0) == 0.0
    known = (Term(1, 0.5, inf),)
    assert mover_tails(known, 0.4) == (0.0, 1.0)
    assert mover_tails(known, 0.6) == (1.0, 0.0)
    assert mover_tails(known, 0.5) == (0.5, 0.5)


@pytest.mark.parametrize("at", [-0.2, 0.1, 0.25, 0.6])
def test_the_score_is_where_the_interval_just_reaches_the_value(at: float) -> None:
    terms = (Term(1, 0.4, 60), Term(-1, 0.15, 90))
    if at == 0.25:
        assert mover_score(terms, at) == pytest.approx(0.0, abs=1e-6)
        return
    z = mover_score(terms, at)
    assert (z > 0) == (at < 0.25)
    assert mover(terms, abs(z))[z < 0] == pytest.approx(at, abs=1e-9)


def ratio(over: float, under: float, n: float = 100, m: float = 100, sign: float = 1) -> Ratio:
    return Ratio((Term(sign, over, n), Term(0, under, m)), (Term(0, over, n), Term(1, under, m)),
                 None)  # fmt: skip


def test_a_ratio_of_which_the_sign_is_turned_has_the_interval_turned() -> None:
    for made in [(0.5, 0.4), (0.9, 0.1), (0.02, 0.9)]:
        low, high = ratio(*made).interval(Z95)
        assert ratio(*made, sign=-1).interval(Z95) == pytest.approx((-high, -low))


def test_a_ratio_over_hardly_anything_is_bounded_by_what_stands_for_no_bound() -> None:
    """A single success of 10^9 items as divisor."""
    up = ratio(0.5, 1e-9, 100, 1e9).interval(Z95)
    down = ratio(0.5, 1e-9, 100, 1e9, sign=-1).interval(Z95)
    assert up[0] < 5e8 < UNBOUNDED <= up[1] < 10 * UNBOUNDED
    assert down == pytest.approx((-up[1], -up[0]))


def test_a_ratio_over_0() -> None:
    assert ratio(0.5, 0.0).value == inf
    assert ratio(0.5, 0.0).interval(Z95) == (-UNBOUNDED, UNBOUNDED)
    assert ratio(0.5, 0.25).value == 2.0


def test_tails_of_a_ratio_need_a_divisor_above_0() -> None:
    shares = [(0.5, 100), (0.4, 100), (0.36, 100)]
    over, under = (
        tuple(Term(w, p, n) for w, (p, n) in zip(weights, shares, strict=True))
        for weights in ((1, 0, 0), (0, 1, -1))
    )
    made = Ratio(over, under, None)
    above, below = made.tails(1.0)
    positive = mover_tails(made.under, 0.0)[0]
    assert positive > 1e-6
    assert above == max(positive, mover_tails(made._less(1.0), 0.0)[0])
    assert below == max(positive, mover_tails(made._less(1.0), 0.0)[1]) > 0.5


@pytest.mark.parametrize(
    ("a", "b"), [((0.5, 0.4), (0.3, 0.7)), ((0.9, 0.3), (0.2, 0.1)), ((0.3, 0.3), (0.3, 0.2))]
)
def test_the_difference_of_two_ratios_turns_with_its_sides(
    a: tuple[float, float], b: tuple[float, float]
) -> None:
    here, there = ratio(*a), ratio(*b)
    low, high = ratio_difference(here, there, there.value, Z95)
    gap = here.value - there.value
    ends, others = here.interval(Z95), there.interval(Z95)
    assert gap - low == pytest.approx(
        sqrt((here.value - ends[0]) ** 2 + (others[1] - there.value) ** 2)
    )
    assert high - gap == pytest.approx(
        sqrt((ends[1] - here.value) ** 2 + (there.value - others[0]) ** 2)
    )
    assert ratio_difference(there, here, here.value, Z95) == pytest.approx((-high, -low))


@pytest.mark.parametrize(("k", "n"), [(0, 50), (10, 50), (50, 50)])
def test_two_successes_and_two_failures_are_added_to_an_sd(k: int, n: int) -> None:
    q = (k + 2) / (n + 4)
    assert shrunk_sd(k / n, n) == pytest.approx(sqrt(q * (1 - q) / n))


@pytest.mark.parametrize("k", [-1, 0, 1, 5, 9, 10, 11, 3.5])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_binomial_tails(k: float, p: float) -> None:
    assert binomial_at_most(k, 10, p) == pytest.approx(stats.binom.cdf(k, 10, p))
    if k == int(k):
        assert binomial_at_least(k, 10, p) == pytest.approx(stats.binom.sf(k - 1, 10, p))


def test_distributions_are_scipys() -> None:
    assert normal_quantile(0.975) == pytest.approx(stats.norm.ppf(0.975))
    assert normal_tail(8.0) == pytest.approx(stats.norm.sf(8.0))
    assert t_quantile(0.9, 3.5) == pytest.approx(stats.t.ppf(0.9, 3.5))
    assert t_tail(5.0, 3.5) == pytest.approx(stats.t.sf(5.0, 3.5))
    assert t_tail(1.5, inf) == pytest.approx(stats.norm.sf(1.5))
    assert beta_quantile(0.1, 2.0, 5.0) == pytest.approx(stats.beta.ppf(0.1, 2.0, 5.0))
    assert pytest.approx(stats.norm.ppf([0.975, 0.95])) == (Z95, Z90)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("zero", "at"),
    [(0.3, 0.3), (0.0, 0.0), (1.0, 1.0), (-0.5, 0.0), (1.5, 1.0), (-7.0, 0.0), (9.0, 1.0)],
)
def test_a_zero_outside_is_that_of_the_end_nearer_to_it(zero: float, at: float, sign: int) -> None:
    assert root(lambda x: sign * (x - zero), 0.0, 1.0) == pytest.approx(at, abs=1e-9)


@pytest.mark.parametrize(
    ("value", "plain", "signed"),
    [
        (0.0, "0", "0"), (4.8076923, "4.808", "+4.808"), (-0.5, "-0.5", "-0.5"),
        (0.00012344, "0.0001234", "+0.0001234"), (1e-6, "0.000001", "+0.000001"),
        (2.5e-5, "0.000025", "+0.000025"), (-2.5e-5, "-0.000025", "-0.000025"),
        (9e-7, "9e-07", "+9e-07"), (12345.6, "12,346", "+12,346"), (-12345.6, "-12,346", "-12,346"),
        (9999.0, "9999", "+9999"), (999_999_999.0, "999,999,999", "+999,999,999"),
        (1e9, "1e+09", "+1e+09"), (1.5, "1.5", "+1.5"), (1.0, "1", "+1"),
    ],
)  # fmt: skip
def test_numbers_have_four_digits_and_no_exponent_for_everyday_sizes(
    value: float, plain: str, signed: str
) -> None:
    assert show(value) == plain
    assert show(value, signed=True) == signed


@pytest.mark.parametrize(
    ("half", "unit", "digits"),
    [
        (50.0, "loss", 0), (5000.0, "loss", 0), (9.9, "loss", 1), (10.0, "loss", 0),
        (1.0, "loss", 1), (0.1, "loss", 2), (0.099, "loss", 3), (1e-9, "loss", 6),
        (1e-5, "loss", 6), (50.0, "percent", 1), (50.0, "fraction", 2), (50.0, "ratio", 2),
        (50.0, "count", 0), (0.5, "count", 2), (0.0, "loss", None), (-1.0, "loss", None),
        (inf, "loss", None), (float("nan"), "loss", None),
    ],
)  # fmt: skip
def test_decimals_are_two_digits_of_the_uncertainty(
    half: float, unit: str, digits: int | None
) -> None:
    assert places(half, unit) == digits


@pytest.mark.parametrize(
    ("value", "half", "signed", "text"),
    [
        (1.256, 0.5, False, "1.26"), (1.256, 0.5, True, "+1.26"), (-0.001, 0.5, True, "0.00"),
        (-0.001, 0.5, False, "0.00"), (0.001, 0.5, True, "0.00"), (1.256789, 0.0, True, "+1.257"),
        (1.256789, 0.0, False, "1.257"), (-0.016, 0.5, True, "-0.02"), (100.0, 50.0, True, "+100"),
    ],
)  # fmt: skip
def test_a_number_with_the_digits_that_it_supports(
    value: float, half: float, signed: bool, text: str
) -> None:
    assert rounded(value, half, "loss", signed) == text


def test_numbers_as_they_are_printed() -> None:
    for text, half in {"208": 0.0, "-208": 0.0, "+208": 0.0, "208.0": 0.05, "5.1e4": 500.0}.items():
        assert printed(text, "count").half == decimal(half)
    assert printed("208", "loss").half == decimal(0.5)
    assert printed("208").half == decimal(0.5)
    assert (scale_of("percent"), scale_of("fraction"), scale_of("loss")) == (100.0, 1.0, 1.0)
    assert [points(unit) for unit in ("percent", "seconds", "minutes", "loss")] == [
        " points", " s", " min", ""
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0001, "p = 0.0001"), (0.00009, "p < 0.0001"), (1.0, "p = 1"), (0.01234, "p = 0.0123")],
)
def test_a_p_value_in_words(p: float, text: str) -> None:
    assert show_p(p) == text


def test_the_first_of_several_names() -> None:
    assert some([]) == ""
    assert some(["a", "b", "c"]) == "a, b, c"
    assert some(["a", "b", "c", "d"]) == "a, b, c and 1 more"
    assert some(["a", "b", "c", "d"], 1) == "a and 3 more"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a\tb\nc\rd e~", "a\tb\nc\rd e~"), ("\x00\x08\x0b\x1f", "????"), (" \x7f", " \x7f"),
        ("\ufffd", "\ufffd"), ("\ufffe\uffff", "??"), ("\U0001f600", "\U0001f600"),
        ("\U00010000", "\U00010000"),
    ],
)  # fmt: skip
def test_what_xml_cannot_hold_becomes_a_question_mark(text: str, clean: str) -> None:
    assert _clean(text) == clean
    ET.fromstring(f"<a>{_clean(text).replace('<', '')}</a>")


def test_the_junit_document_says_its_encoding_and_is_read_line_by_line() -> None:
    cell: Any = expected_cell("t/ä", "50.0")
    content = document(run([cell], [share("t/ä", 104, 208)]))
    first, *rest = content.decode("utf-8").splitlines()
    assert first.startswith("<?xml")
    assert "utf-8" in first.lower()
    assert len(rest) > 3
    assert any('name="t/ä"' in line for line in rest)
