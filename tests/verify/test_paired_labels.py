"""Labels of the same items: correlation, the ends of the scale, net flips by brute force."""

from __future__ import annotations

from itertools import pairwise
from math import comb, inf, sqrt

import numpy as np
import pytest
from scipy import stats

from kit.verify.finding import ALPHA
from kit.verify.pairs import (
    ItemsDiffer,
    _likely,
    correlation,
    critical_difference,
    discordance,
    equivalence_difference,
    mcnemar,
    mcnemar_tails,
    net_at_most,
    tango,
    tango_score,
    tango_tails,
    two_sided,
)
from kit.verify.special import normal_tail
from tests.verify.builders import labels


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("1111000000", "1110100000"),
        ("1111000000", "1110000000"),
        ("1110000", "0001111"),
        ("1100110011", "0101010101"),
        ("111000", "110100"),
    ],
)
def test_correlation_is_numpys_less_half_an_item_where_it_is_positive(
    here: str, there: str
) -> None:
    """Newcombe (1998), method 10: of ``ad - bc`` above 0, n/2 is taken off, but not below 0."""
    x, y = ([int(bit) for bit in bits] for bits in (here, there))
    phi = float(np.corrcoef(x, y)[0, 1])
    n = len(x)
    size = sqrt(sum(x) * (n - sum(x)) * sum(y) * (n - sum(y)))
    expected = phi if phi <= 0 else max(0.0, phi - n / 2 / size)
    assert correlation(labels("a", here), labels("b", there)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("here", "there"), [("10", "10"), ("1111", "1010"), ("1010", "0000"), ("1100", "1010")]
)
def test_labels_that_say_nothing_of_each_other_do_not_correlate(here: str, there: str) -> None:
    """One common item of two, one side constant, or independent."""
    assert correlation(labels("a", here), labels("b", there)) == 0.0


def test_items_are_matched_by_name_else_by_position() -> None:
    here = labels("a", "1100", "wxyz")
    assert discordance(here, labels("b", "0110", "zxyw")) == (1, 1, 4)  # there w 0, x 1, y 1, z 0
    assert discordance(here, labels("b", "0001", "zyxw")) == (1, 0, 4)  # there w 1 alone
    assert discordance(here, labels("b", "0001", [])) == (2, 1, 4)
    assert discordance(labels("a", "1100", []), labels("b", "0001", "zyxw")) == (2, 1, 4)
    with pytest.raises(ItemsDiffer, match="3 of 4 items differ, first 'x'"):
        discordance(here, labels("b", "0001", "wabc"))
    with pytest.raises(ItemsDiffer, match="4 labels against 3"):
        discordance(here, labels("b", "000", "wxy"))


@pytest.mark.parametrize(
    ("b", "c", "two", "tails"),
    [
        (0, 0, 1.0, (1.0, 1.0)),
        (1, 0, 1.0, (1 / 2, 1.0)),
        (0, 2, 1 / 2, (1.0, 1 / 4)),
        (1, 1, 1.0, (3 / 4, 3 / 4)),
    ],
)
def test_few_discordant_items_by_hand(
    b: int, c: int, two: float, tails: tuple[float, float]
) -> None:
    assert mcnemar(b, c) == pytest.approx(two)
    assert mcnemar_tails(b, c) == pytest.approx(tails)


@pytest.mark.parametrize(
    ("b", "c", "n", "at", "score"),
    [
        (0, 0, 50, 0.0, 0.0),
        (50, 0, 50, 1.0, 0.0),
        (0, 50, 50, -1.0, 0.0),
        (3, 0, 50, 1.0, -inf),
        (0, 3, 50, -1.0, inf),
        (3, 0, 50, 1.5, -inf),
        (2, 1, 50, -1.5, inf),
    ],
)
def test_what_no_difference_can_be_is_surely_not_it(
    b: int, c: int, n: int, at: float, score: float
) -> None:
    assert tango_score(b, c, n, at) == score


@pytest.mark.parametrize(("b", "c"), [(9, 2), (2, 9), (1, 0)])
def test_at_no_difference_the_exact_test_speaks_and_elsewhere_the_score(b: int, c: int) -> None:
    assert tango_tails(b, c, 50, 0) == mcnemar_tails(b, c)
    for at in (0.01, -0.01):
        above, below = tango_tails(b, c, 50, at)
        assert (above, below) == pytest.approx(
            (normal_tail(tango_score(b, c, 50, at)), normal_tail(-tango_score(b, c, 50, at)))
        )
        assert above + below == pytest.approx(1)


@pytest.mark.parametrize(("b", "c", "n"), [(10, 2, 208), (2, 10, 208), (1, 0, 30), (5, 5, 40)])
def test_tangos_interval_lies_round_what_was_measured(b: int, c: int, n: int) -> None:
    low, high = tango(b, c, n, 1.96)
    assert -1 < low < (b - c) / n < high < 1
    assert tango_score(b, c, n, low) == pytest.approx(1.96, abs=1e-6)
    assert tango_score(b, c, n, high) == pytest.approx(-1.96, abs=1e-6)


@pytest.mark.parametrize(("n", "critical"), [(1, 2), (4, 5), (5, 6), (6, 5), (8, 7), (9, 6)])
def test_where_every_item_flips_the_critical_count_is_that_of_fair_coins(
    n: int, critical: int
) -> None:
    """n + 1 where not even n of n are rare enough."""
    assert critical_difference(n, 1.0) == critical
    nets = [abs(2 * ups - n) for ups in range(n + 1)]
    rare, common = (
        sum(comb(n, ups) for ups, net in enumerate(nets) if net >= d) / 2**n
        for d in (critical, critical - 1)
    )
    assert rare <= 0.05 < common


@pytest.mark.parametrize("n", [10, 208, 14042, 500_000])
@pytest.mark.parametrize("p", [0.0, 0.0007, 0.02, 0.3, 0.5, 1.0])
def test_the_numbers_of_flips_that_are_summed_over(n: int, p: float) -> None:
    """All within 12 standard deviations, hence next to all of the probability; p as 1 - p."""
    likely, mirrored = _likely(n, p), _likely(n, 1 - p)
    low, high = int(likely[0]), int(likely[-1])
    assert list(likely) == list(range(low, high + 1))
    assert stats.binom.cdf(low - 1, n, p) + stats.binom.sf(high, n, p) < 1e-15
    sd = float(stats.binom.std(n, p))
    assert low <= max(0, n * p - 12 * sd)
    assert high >= min(n, n * p + 12 * sd)
    assert 0 <= low <= high <= n
    assert len(likely) <= 2 * (13 * sd + 32)
    assert (mirrored[0], mirrored[-1]) == (n - high, n - low)


def test_probabilities_that_rounding_puts_above_1_are_1() -> None:
    more = 0.3 + 1e-9
    assert net_at_most(2, 12, 0.7, more) == pytest.approx(net_at_most(2, 12, 0.7, 0.3), abs=1e-7)
    assert net_at_most(12, 12, 0.7, more) == pytest.approx(1)
    assert max(net_at_most(n, n, 0.3, 0.2) for n in range(1, 120)) == 1.0
    assert max(two_sided(n, 1.0, 1) for n in range(1, 40, 2)) == 1.0


@pytest.mark.parametrize("f", [0.0, 0.02, 0.7, 1.0])
def test_at_least_no_net_flip_is_certain(f: float) -> None:
    assert two_sided(20, f, 0) == 1.0
    assert two_sided(20, f, 2) < 1.0


def shifted(n: int, f: float, margin: float) -> list[float]:
    """P(ups - downs <= d) for d from 0 to n - 1, by enumeration."""
    up, down = f / 2 + margin, f / 2
    still = max(0.0, 1 - up - down)
    chance = dict.fromkeys(range(-n, n + 1), 0.0)
    for u in range(n + 1):
        for v in range(n + 1 - u):
            ways = comb(n, u) * comb(n - u, v)
            chance[u - v] += ways * up**u * down**v * still ** (n - u - v)
    return [sum(p for d, p in chance.items() if d <= most) for most in range(n)]


@pytest.mark.parametrize("n", [6, 20])
@pytest.mark.parametrize("f", [0.0, 0.1, 0.8])
@pytest.mark.parametrize("margin", [0.0, 0.1, 0.25, 0.5, 0.9, 1.0, 1.2])
def test_the_largest_net_count_that_rejects_a_shift(n: int, f: float, margin: float) -> None:
    """No more items flip than the shift leaves."""
    tails = shifted(n, min(f, max(0.0, 1 - margin)), min(margin, 1.0))
    assert all(a <= b for a, b in pairwise(tails))
    rejected = [d for d, tail in enumerate(tails) if tail <= ALPHA]
    assert equivalence_difference(n, f, margin) == (rejected[-1] if rejected else None)
