"""Which test a contrast takes, and its p-values by another route."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import sqrt
from statistics import fmean
from typing import Any

import pytest
from scipy import stats

from kit.results.labels import LabelTable
from kit.results.types import Cell
from kit.verify.censored import Contrast, in_words, ordering
from kit.verify.contrast import EQUAL, PLAIN, contrast
from kit.verify.measurement import Measurement, Seed, measure
from kit.verify.pairs import tango_tails
from kit.verify.proportions import Term, mover_tails, ratio_difference
from tests.verify.builders import labels, memory, seeded, seeded_shares, share
from tests.verify.test_ratios import gap

NONE = Fraction(0)


def measured(cell: Cell, source: LabelTable | None = None) -> Measurement:
    return measure(cell, cell.unit, "results.json", source)


def plain(value: float, unit: str = "percent") -> Measurement:
    return measured(Cell(id="t/p", unit=unit, value=value))


def parts(found: Contrast) -> Any:
    return found.estimate, found.above, found.below


def agresti(p: float, n: int) -> float:
    q = (n * p + 2) / (n + 4)
    return sqrt(q * (1 - q) / n)


@pytest.mark.parametrize(
    ("first", "method"),
    [
        (0, "3 paired seeds, one-sided t"),
        (1, "2 paired seeds, one-sided t"),
        (2, "Welch t of independent groups"),
        (3, "Welch t of independent groups"),
    ],
)
def test_two_seeds_in_common_are_paired_and_one_is_not(first: int, method: str) -> None:
    ours, theirs = [5.0, 7.0, 6.5], [2.0, 4.5, 4.25]
    found = contrast(
        measured(seeded("t/a", ours, "loss")),
        measured(seeded("t/b", theirs, "loss", first=first)),
        NONE,
    )
    assert found.method == method
    if first < 2:
        pairs = ours[first:], theirs[: 3 - first]
        known = stats.ttest_rel(*pairs, alternative="greater")
        assert float(found.estimate) == pytest.approx(fmean(pairs[0]) - fmean(pairs[1]))
    else:
        known = stats.ttest_ind(ours, theirs, equal_var=False, alternative="greater")
    assert found.above == pytest.approx(known.pvalue)
    assert found.below == pytest.approx(1 - known.pvalue)


@pytest.mark.parametrize(("weight", "at"), [(1, 0), (2, 0), (1, 1), (3, -2)])
def test_paired_differences_have_weight_and_threshold_in_them(weight: int, at: int) -> None:
    ours, theirs = [5.0, 7.0, 6.5, 4.0], [2.0, 4.5, 4.25, 3.0]
    found = contrast(
        measured(seeded("t/a", ours, "loss")),
        measured(seeded("t/b", theirs, "loss")),
        Fraction(at),
        Fraction(weight),
    )
    gaps = [x - weight * y for x, y in zip(ours, theirs, strict=True)]
    known = stats.ttest_1samp(gaps, at, alternative="greater")
    assert found.above == pytest.approx(known.pvalue)
    assert float(found.estimate) == pytest.approx(sum(gaps) / 4 - at)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_share_against_a_plain_number_has_the_noise_of_its_items_alone(sign: int) -> None:
    ours, theirs = measured(share("t/a", 30, 120)), plain(20.0)
    found = contrast(ours, theirs, NONE) if sign > 0 else contrast(theirs, ours, NONE)
    assert found.method == "Welch t of independent groups"
    known = stats.norm.sf(sign * 5 / (100 * agresti(0.25, 120)))
    assert found.above == pytest.approx(known)
    assert found.below == pytest.approx(1 - known)


def test_plain_numbers_are_compared_as_they_stand() -> None:
    found = contrast(plain(30.0), plain(20.0), Fraction(4))
    assert (*parts(found), found.method) == (6, None, None, PLAIN)
    alone = contrast(plain(30.0), None, Fraction(4))
    assert (*parts(alone), alone.method) == (26, None, None, PLAIN)


@pytest.mark.parametrize("m", [2, 3, 5])
@pytest.mark.parametrize("shift", [0.5, -0.5, 2.0])
def test_equal_differences_of_other_numbers_have_the_sign_test(m: int, shift: float) -> None:
    theirs = [float(i * i) for i in range(m)]
    ours = [value + shift for value in theirs]
    found = contrast(
        measured(seeded("t/a", ours, "loss")), measured(seeded("t/b", theirs, "loss")), NONE
    )
    side = "greater" if shift > 0 else "less"
    known = stats.binomtest(m if shift > 0 else 0, m, alternative=side).pvalue
    tails = (known, 1.0) if shift > 0 else (1.0, known)
    assert parts(found)[1:] == tails
    assert "sign test" in found.method
    even = contrast(
        measured(seeded("t/a", ours, "loss")),
        measured(seeded("t/b", theirs, "loss")),
        Fraction(shift),
    )
    assert parts(even) == (0, 1.0, 1.0)


def test_what_never_varies_is_compared_as_it_stands() -> None:
    still, other = seeded("t/a", [7.0] * 3, "loss"), seeded("t/b", [5.0] * 3, "loss", first=9)
    paired = contrast(measured(still), measured(seeded("t/b", [5.0] * 3, "loss")), NONE)
    groups = contrast(measured(still), measured(other), NONE)
    against = contrast(measured(still), plain(5.0, "loss"), NONE)
    alone = contrast(measured(still), None, Fraction(5))
    turned = contrast(plain(9.0, "loss"), measured(still), NONE)
    for found in (paired, groups, against, alone, turned):
        assert parts(found) == (2, None, None)
        assert found.method == EQUAL


@pytest.mark.parametrize("turned", [False, True])
def test_equal_differences_of_shares_and_of_bare_numbers_have_the_sign_test(turned: bool) -> None:
    """Items are known of one side only."""
    shares = measured(seeded_shares("t/a", [30, 40, 60], 100))
    bare = measured(seeded("t/b", [20.0, 30.0, 50.0]))
    found = contrast(bare, shares, NONE) if turned else contrast(shares, bare, NONE)
    assert parts(found) == ((-10, 1.0, 1 / 8) if turned else (10, 1 / 8, 1.0))


@pytest.mark.parametrize("turned", [False, True])
def test_shares_over_seeds_against_a_share_measured_once_are_groups(turned: bool) -> None:
    several, single = (
        measured(seeded_shares("t/a", [30, 36, 33], 100)),
        measured(share("t/b", 30, 120)),
    )
    found = contrast(single, several, NONE) if turned else contrast(several, single, NONE)
    own, other = stats.tstd([30, 36, 33]) ** 2 / 3, (100 * agresti(0.25, 120)) ** 2
    df = (own + other) ** 2 / (own**2 / 2)
    p = stats.t.sf((-8 if turned else 8) / sqrt(own + other), df)
    assert found.above == pytest.approx(p)
    assert found.method == "Welch t of independent groups"


@pytest.mark.parametrize("weight", [1, 2])
def test_equal_differences_of_shares_have_the_noise_of_both_sides_items(weight: int) -> None:
    ours, theirs = seeded_shares("t/a", [30] * 4, 100), seeded_shares("t/b", [10] * 4, 50)
    found = contrast(measured(ours), measured(theirs), NONE, Fraction(weight))
    error = 100 * sqrt(agresti(0.3, 100) ** 2 + (weight * agresti(0.2, 50)) ** 2) / sqrt(4)
    assert found.above == pytest.approx(stats.t.sf((30 - weight * 20) / error, 3))
    assert "item sampling" in found.method


def test_seeds_alone_have_a_one_sided_t() -> None:
    values = [5.0, 7.0, 6.5]
    found = contrast(measured(seeded("t/a", values, "loss")), None, Fraction(6))
    known = stats.ttest_1samp(values, 6, alternative="greater").pvalue
    assert parts(found)[1:] == (pytest.approx(known), pytest.approx(1 - known))


# Ratios.


def ratio(rates: tuple[float, float, float], n: float, unit: str) -> Measurement:
    made = gap(rates, n)
    whole = 100.0 if unit == "percent" else 1.0
    return replace(plain(round(made.value, 9) * whole, unit), ratio=made)


@pytest.mark.parametrize("unit", ["ratio", "percent"])
@pytest.mark.parametrize("at", [0.0, 0.1, -0.4])
@pytest.mark.parametrize("other", [0.5, 0.95, "ratio"])
def test_a_ratio_is_tested_where_its_interval_ends(unit: str, at: float, other: Any) -> None:
    """At the z of the p-value the interval of the difference just reaches the threshold."""
    whole = 100 if unit == "percent" else 1
    here = ratio((0.8, 0.3, 0.1), 208, unit)
    there = ratio((0.7, 0.2, 0.05), 100, unit) if other == "ratio" else plain(other * whole, unit)
    found = contrast(here, there, Fraction(str(at)) * whole)
    assert here.ratio is not None
    assert here.value is not None
    assert there.value is not None
    estimate = float(here.value - there.value) / whole - at
    assert float(found.estimate) == pytest.approx(estimate * whole)
    assert found.above is not None
    assert found.below == pytest.approx(1 - found.above)
    assert (found.above < 0.5) == (estimate > 0)
    z = abs(float(stats.norm.isf(found.above)))
    if z < 7:
        limits = ratio_difference(here.ratio, there.ratio, float(there.value) / whole, z)
        assert limits[0 if estimate > 0 else 1] == pytest.approx(at, abs=1e-6)
    assert "independent" in found.method


def test_a_ratio_that_is_what_it_is_compared_with_goes_neither_way() -> None:
    here = ratio((0.8, 0.3, 0.1), 208, "ratio")
    assert here.value is not None
    found = contrast(
        here, replace(plain(0.5, "ratio"), value=here.value - Fraction("0.25")), Fraction("0.25")
    )
    assert parts(found) == (0, 0.5, 0.5)
    assert contrast(here, plain(0.2, "ratio"), NONE, Fraction(2)).method == PLAIN


@pytest.mark.parametrize("unit", ["ratio", "percent"])
def test_a_ratio_alone_has_its_own_tails(unit: str) -> None:
    here = ratio((0.8, 0.3, 0.1), 208, unit)
    found = contrast(here, None, Fraction("0.6") * (100 if unit == "percent" else 1))
    assert here.ratio is not None
    assert parts(found)[1:] == here.ratio.tails(0.6)
    assert found.method == here.ratio.how


# Proportions.


@pytest.mark.parametrize("unit", ["percent", "fraction"])
@pytest.mark.parametrize("at", ["0", "0.05", "-0.1"])
def test_shares_of_the_same_items_are_paired_whatever_their_units(unit: str, at: str) -> None:
    lines = labels("a", "1110011000"), labels("b", "1000010001")
    source = memory(*lines)
    ours = measured(share("t/a", 5, 10, labels="a"), source)
    theirs = measured(share("t/b", 3, 10, unit, labels="b"), source)
    found = contrast(ours, theirs, Fraction(at) * 100)
    assert parts(found)[1:] == tango_tails(3, 1, 10, float(at))
    assert found.estimate == 20 - 100 * Fraction(at)
    assert "3 only in the first, 1 only in the second of 10" in found.method


@pytest.mark.parametrize("items", [([], None), (None, []), (None, "other"), ([], [])])
def test_labels_without_common_names_are_not_paired(items: tuple[Any, Any]) -> None:
    names = [
        None if item is None else [f"o{i}" for i in range(10)] if item else [] for item in items
    ]
    source = memory(labels("a", "1110011000", names[0]), labels("b", "1000010001", names[1]))
    found = contrast(
        measured(share("t/a", 5, 10, labels="a"), source),
        measured(share("t/b", 3, 10, labels="b"), source),
        NONE,
    )
    assert found.method == "score interval of two proportions"


@pytest.mark.parametrize(("weight", "at"), [(1, 0.0), (2, 0.0), (2, -0.2), (1, 0.1)])
@pytest.mark.parametrize("unit", ["percent", "fraction"])
def test_a_weighted_share_is_a_weighted_sum(weight: int, at: float, unit: str) -> None:
    """Also between units; paired labels say nothing of it."""
    source = memory(labels("a", "1110011000"), labels("b", "1000010001"))
    ours = measured(share("t/a", 5, 10, labels="a" if weight > 1 else None), source)
    theirs = measured(share("t/b", 3, 10, unit, labels="b"), source)
    found = contrast(ours, theirs, Fraction(str(at)) * 100, Fraction(weight))
    terms = (Term(1, 0.5, 10), Term(-weight, 0.3, 10))
    assert parts(found)[1:] == pytest.approx(mover_tails(terms, at))


def test_units_that_do_not_compare_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'loss' \(t/p\) and 'percent' \(t/p\) do not compare"):
        contrast(plain(1.0, "loss"), plain(1.0), NONE)


# First crossings.


def crossing(*values: tuple[int, bool], first: int = 0) -> Measurement:
    seeds = tuple(
        Seed(str(first + i), Fraction(value), None, None, None, beyond)
        for i, (value, beyond) in enumerate(values)
    )
    return Measurement("t/c", "count", None, None, None, seeds, None, ())


def test_two_common_crossings_are_paired_and_one_is_ranked() -> None:
    ours = crossing((10, False), (100, True), (40, False))
    both = ordering(ours, crossing((90, False), (20, False), first=1), NONE, Fraction(1))
    assert "exact sign test over 2 paired seeds" in both.method
    single = ordering(ours, crossing((90, False), (20, False), first=2), NONE, Fraction(1))
    assert "exact rank test of 3 against 2 seeds" in single.method


def test_of_crossings_the_lead_of_either_side_is_known() -> None:
    """Of five pairs three are later, one is sooner, of one nothing is known."""
    ours = crossing((100, True), (90, False), (80, False), (5, False), (100, True))
    theirs = crossing((10, False), (10, False), (10, False), (10, False), (100, True))
    found = ordering(ours, theirs, NONE, Fraction(1))
    assert parts(found) == (Fraction(2, 5), 5 / 16, 15 / 16)
    groups = ordering(ours, crossing((1, False), (2, False), first=9), NONE, Fraction(1))
    assert parts(groups) == (1, 1 / 21, 1.0)


def test_a_crossing_at_the_end_of_the_shortest_is_one() -> None:
    """What crossed at 20 is surely sooner than what had not by then."""
    crossed = crossing((20, False), (20, False), (20, False), first=9)
    for ends in ((20, 20, 20), (20, 90, 500)):
        never = crossing(*((end, True) for end in ends))
        assert parts(ordering(never, crossed, NONE, Fraction(1))) == (1, 1 / 20, 1.0)
    late = crossing((20, True), (21, False), (90, False))
    assert parts(ordering(late, crossed, NONE, Fraction(1))) == (1, 1 / 20, 1.0)


def test_crossings_stand_in_order_whatever_the_order_of_seeds() -> None:
    made = crossing((60, False), (100, True), (30, False), (45, False), (90, True))
    assert in_words(made) == "not within 90 in 2 of 5 seeds, else 30 to 60"


@pytest.mark.parametrize(
    ("above", "below", "p"),
    [(0.01, 0.99, 0.02), (0.7, 0.3, 0.6), (1.0, 1.0, 1.0), (None, 0.1, None), (0.1, None, None)],
)
def test_two_sided_is_twice_the_smaller_tail(
    above: float | None, below: float | None, p: float | None
) -> None:
    made = Contrast(Fraction(3), above, below, "m")
    assert made.p == (None if p is None else pytest.approx(p))
    turned = made.flipped()
    assert parts(turned) == (-3, below, above)
