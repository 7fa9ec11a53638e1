"""Kinds that compare items, each number of a finding by independent recomputation."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import ceil, floor, sqrt

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from kit.verify.finding import ALPHA, Finding
from kit.verify.kinds.items import (
    STANDOFF,
    binomial,
    flip,
    needed_items,
    paired,
    published_range,
)
from kit.verify.numbers import printed
from kit.verify.pairs import tango

Z95, Z90 = stats.norm.ppf(0.975), stats.norm.ppf(0.95)


def ends(finding: Finding, narrow: bool = False) -> tuple[float, float]:
    interval = finding.interval_equivalence if narrow else finding.interval
    assert interval is not None
    assert interval.level == (0.90 if narrow else 0.95)
    return interval.low, interval.high


# -- binomial


@pytest.mark.parametrize(
    ("text", "n", "unit"),
    [("4.8", 208, "percent"), ("2", 1000, "percent"), ("0.5", 40, "fraction"),
     ("99.9", 50, "percent"), ("0.0", 208, "percent"), ("99.9", 3000, "percent"),
     ("33", 3000, "percent"), ("0.33", 30, "fraction")],
)  # fmt: skip
def test_a_printed_rate_stands_for_the_counts_that_round_to_it(
    text: str, n: int, unit: str
) -> None:
    value, whole = printed(text), 100 if unit == "percent" else 1
    meant = [k for k in range(n + 1) if abs(Fraction(whole * k, n) - value.value) <= value.half]
    low, high = published_range(value, n, unit, None)
    if len(meant) == 1:
        assert low == high == meant[0] / n
    else:
        assert low == max(0.0, float((value.value - value.half) / whole))
        assert high == min(1.0, float((value.value + value.half) / whole))
    assert published_range(value, n, unit, 7) == (7 / n, 7 / n)


@pytest.mark.parametrize(("unit", "scale"), [("percent", 100), ("fraction", 1)])
@pytest.mark.parametrize(("k", "count"), [(30, 10), (10, 30), (12, 10)])
def test_two_rates_by_statsmodels(k: int, count: int, unit: str, scale: int) -> None:
    n, m = 208, 190
    text = f"{scale * count / m:.4f}"
    found = binomial(k, n, printed(text), Fraction(scale, 20), unit, m, count)
    for narrow, alpha in ((False, 0.05), (True, 0.10)):
        theirs = confint_proportions_2indep(k, n, count, m, method="newcomb", alpha=alpha)
        assert ends(found, narrow) == pytest.approx([scale * end for end in theirs], rel=1e-9)
    assert found.difference == pytest.approx(scale * k / n - float(text))
    assert found.margin == pytest.approx(scale / 20)
    assert (found.verdict == "deviates") == (abs(k - count) > 5)


def test_p_is_the_level_at_which_the_interval_reaches_zero() -> None:
    for k, count in ((30, 10), (10, 30), (25, 20)):
        found = binomial(k, 208, printed(str(count / 2.08)), Fraction(1), "percent", 208, count)
        assert found.p is not None
        assert 0 < found.p < 1
        limits = confint_proportions_2indep(k, 208, count, 208, method="newcomb", alpha=found.p)
        assert min(map(abs, limits)) == pytest.approx(0, abs=1e-6)


def test_the_count_decides_what_is_identical_where_it_is_printed() -> None:
    def at(k: int, n: int, m: int, count: int | None) -> str:
        return binomial(k, n, printed("5"), Fraction(20), "percent", m, count).verdict

    assert at(10, 208, 208, None) == "match"
    assert at(10, 208, 208, 10) == "match"
    assert at(10, 208, 208, 11) != "match", "both round to 5 %, and the counts differ"
    assert at(20, 416, 208, 10) == "match", "the same share of twice the items"


def test_needed_items_decide_and_a_tenth_less_do_not() -> None:
    p, q, margin = 0.12, 0.10, 0.05
    said = needed_items(p, (q, q), margin, 100)
    assert said.startswith("about ")
    items = int(said.split()[1].replace(",", ""))

    def decided(n: float) -> bool:
        at = [confint_proportions_2indep(p * n, n, q * n, n, method="newcomb", alpha=a)
              for a in (0.10, 0.05)]  # fmt: skip
        return max(map(abs, at[0])) <= margin or at[1][0] > 0 or at[1][1] < 0

    assert decided(items)
    assert not decided(items * 0.9)
    assert "more than" in needed_items(0.10, (0.0, 0.2), 0.05, 100)


# -- paired


@pytest.mark.parametrize(("b", "c", "n"), [(9, 2, 208), (2, 9, 208), (0, 4, 100), (30, 30, 208)])
@pytest.mark.parametrize(("unit", "scale"), [("percent", 100), ("fraction", 1)])
def test_labels_of_the_same_items(b: int, c: int, n: int, unit: str, scale: int) -> None:
    found = paired(b, c, n, Fraction(scale, 20), None, unit)
    table = np.array([[n - b - c, c], [b, 0]])
    assert found.p == pytest.approx(their_mcnemar(table, exact=True).pvalue)
    assert found.difference == pytest.approx(scale * (b - c) / n)
    assert found.flip_rate == pytest.approx((b + c) / n)
    assert ends(found) == pytest.approx([scale * end for end in tango(b, c, n, Z95)])
    assert ends(found, True) == pytest.approx([scale * end for end in tango(b, c, n, Z90)])
    assert f"{b} items only here and {c} only there of {n}" in found.detail


def test_a_share_of_flips_is_allowed_up_to_the_share() -> None:
    def at(flips: int) -> Finding:
        half = flips // 2
        return paired(half, flips - half, 200, Fraction(10), Fraction(5, 100), "percent")

    assert at(10).verdict == "reproduced", "as many as are allowed"
    assert at(11).verdict == "inconclusive", "more, but not surely"
    assert at(11).needed == "a larger sample of flips"
    surely = [f for f in range(11, 60)
              if proportion_confint(f, 200, alpha=0.10, method="beta")[0] > 0.05]  # fmt: skip
    assert at(surely[0]).verdict == "deviates", "surely more than are allowed, at net 0"
    assert at(surely[0] - 1).verdict == "inconclusive"
    assert "(allowed 5 %)" in at(10).detail
    assert "allowed" not in paired(5, 5, 200, Fraction(10), None, "percent").detail


def test_labels_that_decide_need_no_more_of_them() -> None:
    assert paired(5, 5, 200, Fraction(10), None, "percent").needed is None
    assert paired(30, 5, 200, Fraction(1), None, "percent").needed is None


def test_needed_labels_decide_and_a_tenth_less_do_not() -> None:
    b, c, n, margin = 6, 3, 100, 0.05
    found = paired(b, c, n, Fraction(5), None, "percent")
    assert found.verdict == "inconclusive"
    assert found.needed is not None
    items = int(found.needed.split()[1].replace(",", ""))
    assert items > n

    def decided(times: float) -> bool:
        narrow = tango(b * times, c * times, n * times, Z90)
        wide = tango(b * times, c * times, n * times, Z95)
        return max(map(abs, narrow)) <= margin or wide[0] > 0 or wide[1] < 0

    assert decided(1.01 * items / n)
    assert not decided(0.9 * items / n)
    assert paired(0, 0, 10, Fraction(1), None, "percent").verdict == "match"


def test_equal_within_the_margin_and_yet_shifted_is_said_of_labels() -> None:
    found = paired(12, 1, 2000, Fraction(5), None, "percent")
    assert (found.verdict, found.shifted) == ("reproduced", True)
    assert paired(4, 3, 2000, Fraction(5), None, "percent").shifted is False
    assert paired(40, 1, 100, Fraction(5), None, "percent").shifted is False, "it deviates"


# -- flip: the net count of n items of which a share f flips, drawn item by item


def net_counts(n: int, up: float, down: float) -> np.ndarray:
    """P(net = -n), ..., P(net = n), by convolution."""
    made = np.array([1.0])
    for _ in range(n):
        made = np.convolve(made, [down, 1 - up - down, up])
    return made


def at_least(n: int, f: float, d: int) -> float:
    chances, nets = net_counts(n, f / 2, f / 2), np.arange(-n, n + 1)
    return float(chances[abs(nets) >= d].sum())


N, RATE = 100, Fraction(6, 100)
CRITICAL = next(d for d in itertools.count(1) if at_least(N, float(RATE), d) <= ALPHA)


def allowed_net(margin: float) -> int:
    """Largest net count that a shift by the margin produces in at most 5 % of runs."""
    chances = net_counts(N, float(RATE) / 2 + margin, float(RATE) / 2)
    below = np.cumsum(chances)[N:]  # of net 0, 1, ...
    return int(np.flatnonzero(below <= ALPHA)[-1])


def flipped(
    k: int, count: str, margin: str = "12", unit: str = "percent", text: str | None = None
) -> Finding:
    value = Fraction(count) * (100 if unit == "percent" else 1) / N
    shown = printed(text or str(float(value)))
    return flip(k, N, shown, Fraction(count), Fraction(0), Fraction(margin), RATE, unit)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_net_count_deviates_from_the_critical_one_on(sign: int) -> None:
    margin = "1"  # so small that nothing is equivalent
    inner = flipped(50 + sign * (CRITICAL - 1), "50", margin)
    outer = flipped(50 + sign * CRITICAL, "50", margin)
    assert (inner.verdict, outer.verdict) == ("inconclusive", "deviates")
    assert outer.p == pytest.approx(at_least(N, float(RATE), CRITICAL))
    assert inner.p == pytest.approx(at_least(N, float(RATE), CRITICAL - 1))
    assert outer.difference == pytest.approx(sign * CRITICAL)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_net_count_is_equivalent_up_to_what_a_shift_would_leave(sign: int) -> None:
    most = allowed_net(0.12)
    assert 0 < most < CRITICAL + 3
    assert flipped(50 + sign * most, "50").verdict == "reproduced"
    assert flipped(50 + sign * (most + 1), "50").verdict != "reproduced"


def test_the_intervals_of_a_net_count() -> None:
    """Wide: the net counts that flips explain. Narrow: as far in the margin as is equivalent."""
    found, most = flipped(52, "50"), allowed_net(0.12)
    assert ends(found) == pytest.approx((2 - (CRITICAL - 1), 2 + CRITICAL - 1))
    assert ends(found, True) == pytest.approx((2 - (12 - most), 2 + 12 - most))
    share = flipped(52, "50", "0.12", "fraction", "0.50")
    assert ends(share) == pytest.approx([end / 100 for end in ends(found)])
    assert share.difference == pytest.approx(0.02)


def test_without_an_equivalent_net_count_the_narrow_interval_leaves_the_margin() -> None:
    found = flipped(50, "50", "1", text="49.9")
    low, high = ends(found, True)
    assert low < -1
    assert high > 1
    assert found.verdict == "inconclusive"
    assert found.needed is not None


def test_a_printed_rate_that_leaves_counts_open_gives_them_the_benefit() -> None:
    def at(k: int, blur: str) -> Finding:
        return flip(
            k, N, printed("50.01"), Fraction(50), Fraction(blur), Fraction(1), RATE, "percent"
        )

    sure, open_ = at(50 + CRITICAL, "0"), at(50 + CRITICAL, "1/2")
    assert (sure.verdict, open_.verdict) == ("deviates", "deviates"), "counts are whole"
    assert at(50 + CRITICAL, "1").verdict == "inconclusive"
    assert at(50 - CRITICAL, "1").verdict == "inconclusive"
    wide = ends(open_)
    assert wide[1] - wide[0] == pytest.approx(2 * (CRITICAL - 1 + 0.5))
    narrow, sharp = ends(open_, True), ends(sure, True)
    assert narrow[1] - narrow[0] == pytest.approx(sharp[1] - sharp[0] + 1)


def test_an_open_count_is_equivalent_only_where_every_count_is() -> None:
    most = allowed_net(0.12)

    def at(blur: str) -> str:
        shown = printed("50.01")
        return flip(
            50 + most, N, shown, Fraction(50), Fraction(blur), Fraction(12), RATE, "percent"
        ).verdict

    assert (at("0"), at("1")) == ("reproduced", "inconclusive")


def test_sentences_carry_as_many_digits_as_the_interval_supports() -> None:
    """A percentage of 208 items is known to a few points: to a tenth at most, not to 12 digits."""
    assert "difference +3.4 points" in paired(9, 2, 208, Fraction(5), None, "percent").detail
    assert "difference +0.034," in paired(9, 2, 208, Fraction(1, 20), None, "fraction").detail
    assert "difference +2.0 points = +2 items" in flipped(52, "50", text="50.0").detail


def test_identical_and_shifted_net_counts() -> None:
    assert flipped(50, "50").verdict == "match"
    assert flipped(49, "50", text="50.0").verdict != "match"
    assert flipped(51, "50", text="50.0").verdict != "match"
    near = flip(
        540,
        1000,
        printed("52.0"),
        Fraction(520),
        Fraction(0),
        Fraction(6),
        Fraction(1, 100),
        "percent",
    )
    assert (near.verdict, near.shifted) == ("reproduced", True)
    assert flipped(51, "50").shifted is False


def test_items_needed_for_a_net_count() -> None:
    found = flipped(54, "50", "6")
    assert found.verdict == "inconclusive"
    assert found.needed is not None
    items = int(found.needed.split()[1].replace(",", ""))

    def decided(n: float) -> bool:
        spread = sqrt((float(RATE) + 0.06) / n)
        return 0.04 + Z90 * spread < 0.06 or Z95 * sqrt(float(RATE) / n) < 0.04

    assert decided(items)
    assert not decided(floor(items * 0.95))
    assert ceil(items) == items
    assert flipped(50 + CRITICAL - 1, "50", str(CRITICAL - 1)).needed is not None
    assert STANDOFF.startswith("no number of items decides")
