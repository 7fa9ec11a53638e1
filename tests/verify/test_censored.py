"""First crossings that never happened: order, exact tests, and how often they are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kit.errors import InvalidInput
from kit.results.types import Cell, SeedValue
from kit.verify.censored import Bounded, compare, in_words, ordering, split_sums
from kit.verify.contrast import contrast
from kit.verify.measurement import Measurement, measure
from kit.verify.verdict import CellReport
from tests.verify.builders import expected_cell, one, tolerance

END = 100


def crossings(values: Sequence[float | None], first: int = 0, end: float = END) -> Measurement:
    """A cell of first crossings; None for a seed that never crossed."""
    seeds = [
        SeedValue(seed=str(first + i), value=end if v is None else v, beyond=v is None)
        for i, v in enumerate(values)
    ]
    mean = None if None in values else sum(v or 0 for v in values) / len(values)
    cell = Cell(id="t/a", unit="count", value=mean, seeds=seeds)
    return measure(cell, "count", "results.json", None)


def test_order_of_what_is_known_and_what_is_not() -> None:
    ten, hundred, never = (
        Bounded(Fraction(10)),
        Bounded(Fraction(END)),
        Bounded(Fraction(END), True),
    )
    assert [compare(ten, hundred), compare(hundred, ten), compare(ten, ten)] == [-1, 1, 0]
    assert [compare(never, hundred), compare(hundred, never)] == [1, -1]
    assert compare(never, never) == 0
    early = Bounded(Fraction(5), True)
    assert [compare(early, ten), compare(ten, early)] == [0, 0], "stopped before the other crossed"


@given(st.lists(st.integers(-6, 6), max_size=9).flatmap(
    lambda scores: st.tuples(st.just(scores), st.integers(0, len(scores)))
))  # fmt: skip
def test_sums_over_all_splits_by_brute_force(made: tuple[list[int], int]) -> None:
    scores, size = made
    found = split_sums(scores, size)
    assert sum(found.values()) == comb(len(scores), size)
    brute: dict[int, int] = {}
    for choice in combinations(scores, size):
        brute[sum(choice)] = brute.get(sum(choice), 0) + 1
    assert found == brute


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=5, unique=True),
    st.lists(st.integers(51, 99), min_size=0, max_size=4, unique=True),
    st.data(),
)
def test_the_rank_test_is_scipys_permutation_test(
    low: list[int], high: list[int], data: st.DataObject
) -> None:
    """With one censored value its rank is the last, and the test the exact rank-sum test."""
    pooled: list[float | None] = [*map(float, [*low, *high]), None]
    order = data.draw(st.permutations(pooled))
    m = data.draw(st.integers(1, len(order) - 1)) if len(order) > 1 else 1
    if m >= len(order):
        return
    found = ordering(crossings(order[:m]), crossings(order[m:], first=50), Fraction(0), Fraction(1))
    ranks = [1e9 if value is None else value for value in order]
    for p, side in ((found.above, "greater"), (found.below, "less")):
        known = stats.mannwhitneyu(ranks[:m], ranks[m:], alternative=side, method="exact")
        assert p == pytest.approx(known.pvalue, abs=1e-12)


@given(st.lists(st.integers(1, END), min_size=1, max_size=12), st.integers(0, 12))
def test_paired_seeds_are_scipys_sign_test(values: list[int], never: int) -> None:
    never = min(never, len(values))
    later = crossings([None] * never + [float(v) for v in values[never:]])
    sooner = crossings([50.0] * len(values))
    if never == 0 or len(values) < 2:
        return
    found = ordering(later, sooner, Fraction(0), Fraction(1))
    signs = [1] * never + [int(np.sign(v - 50)) for v in values[never:]]
    more, fewer = signs.count(1), signs.count(-1)
    known = stats.binomtest(more, more + fewer, alternative="greater").pvalue
    assert found.above == pytest.approx(known, abs=1e-12)
    assert "paired seeds" in found.method


def test_margins_and_weights_move_what_is_compared() -> None:
    later, sooner = crossings([None] * 5), crossings([10.0, 20.0, 30.0, 40.0, 50.0])
    assert contrast(later, sooner, Fraction(0)).above == 1 / 32
    assert contrast(later, sooner, Fraction(50)).above == 1 / 32, "100 - 50 is still at least 50"
    shifted = contrast(later, sooner, Fraction(60))
    assert shifted.above == 1 / 16, "nothing is known of the seed that crossed at 50"
    assert "1 of unknown or equal order left out" in shifted.method
    assert contrast(later, sooner, Fraction(0), Fraction(2)).above == 1 / 32
    assert contrast(later, sooner, Fraction(0), Fraction(4)).above == 1 / 4
    assert contrast(sooner, later, Fraction(0)).below == 1 / 32


def test_against_a_number() -> None:
    cell = crossings([None, None, None, 80.0, 90.0])
    assert contrast(cell, None, Fraction(70)).above == 1 / 32
    assert contrast(cell, None, Fraction(END)).below == 26 / 32
    beyond = contrast(cell, None, Fraction(500))
    assert (beyond.above, beyond.below) == (1.0, 1 / 4), "three seeds say nothing about 500"


def test_unequal_ends_are_cut_to_the_shortest() -> None:
    short, long = crossings([None, None], end=20), crossings([30.0, 40.0, 50.0], first=10)
    found = contrast(short, long, Fraction(0))
    assert (found.above, found.below) == (1.0, 1.0), "beyond 20 nothing can be compared"
    mixed = crossings([None, 40.0, 50.0], first=10, end=500)
    found = contrast(short, mixed, Fraction(0))
    assert (found.above, found.below) == (1.0, 1.0), "whoever was followed longer"


def test_nothing_that_can_be_ordered_is_undetermined() -> None:
    never = crossings([None, None, None])
    found = contrast(never, never, Fraction(0))
    assert (found.above, found.below) == (1.0, 1.0)


def test_words_for_a_verdict() -> None:
    assert (
        in_words(crossings([None, 30.0, 60.0])) == "not within 100 in 1 of 3 seeds, else 30 to 60"
    )
    assert in_words(crossings([None, 30.0])) == "not within 100 in 1 of 2 seeds, else 30"
    assert in_words(crossings([None])) == "not within 100"


def test_a_mean_beside_a_censored_seed_is_refused() -> None:
    seeds = [SeedValue(seed="0", value=100, beyond=True), SeedValue(seed="1", value=50)]
    cell = Cell(id="t/a", unit="count", value=75, seeds=seeds)
    with pytest.raises(InvalidInput, match="there is no mean"):
        measure(cell, "count", "results.json", None)


@pytest.mark.parametrize("paired", [True, False])
def test_false_alarms_at_equal_truths(paired: bool) -> None:
    """As in use: t where everything crossed, the exact tests where something did not."""
    random, wrong, trials = np.random.default_rng(5), 0, 1500
    for _ in range(trials):
        draws = np.ceil(random.exponential(60, (2, 6)) / 10) * 10
        cells = [
            crossings([float(v) if v <= END else None for v in draw], 0 if paired else 50 * i)
            for i, draw in enumerate(draws)
        ]
        found = contrast(cells[0], cells[1], Fraction(0))
        wrong += found.above is not None and found.above <= 0.05
    assert wrong / trials <= 0.055


# Cells of which a seed never got there.


def judged(
    values: Sequence[float | None], kind: str = "seeds", value: str | None = "50", **rule: Any
) -> CellReport:
    """Crossings that were followed to 100, against 50."""
    defaults = {} if kind == "bound" else {"margin": "5"}
    expected = expected_cell(
        "t/a", value, unit="count", tolerance=tolerance(kind, **(defaults | rule))
    )
    seeds = [SeedValue(seed=str(i), value=END if v is None else v, beyond=v is None)
             for i, v in enumerate(values)]  # fmt: skip
    return one(expected, Cell(id="t/a", unit="count", seeds=seeds))


@pytest.mark.parametrize(
    ("values", "verdict", "p"),
    [
        ([None] * 6, "deviates", 2 / 2**6),
        ([None] * 5, "inconclusive", 2 / 2**5),
        ([None] * 5 + [60.0], "deviates", 2 / 2**6),
        ([None] * 5 + [40.0], "inconclusive", 2 * 7 / 2**6),
    ],
)
def test_seeds_that_never_got_there_are_ordered_against_the_number(
    values: list[float | None], verdict: str, p: float
) -> None:
    report = judged(values)
    assert (report.verdict, report.p) == (verdict, pytest.approx(p))
    assert (report.needed is None) == (verdict == "deviates")


@pytest.mark.parametrize(
    ("seeds", "side", "verdict"),
    [
        (5, "at_most", "deviates"),
        (5, "at_least", "reproduced"),
        (4, "at_most", "inconclusive"),
        (4, "at_least", "inconclusive"),
        (1, "at_most", "inconclusive"),
        (1, "at_least", "inconclusive"),
    ],
)
def test_a_bound_on_what_never_happened(seeds: int, side: str, verdict: str) -> None:
    report = judged([None] * seeds, "bound", value=None, bound="50", side=side)
    assert report.verdict == verdict
    assert side.replace("_", " ") + " 50 asked" in report.detail
    needed = {1: "at least 5 seeds", 4: "curves that reach further, or more seeds", 5: None}
    assert report.needed == needed[seeds]
    assert report.margin == (None if seeds == 1 else 50.0)


@pytest.mark.parametrize(
    ("kind", "rule", "edge"),
    [
        ("absolute", {"margin": "10"}, 10.0),
        ("relative", {"margin": "0.25", "floor": "1"}, 0.25 * 50.5),
        ("relative", {"margin": "0.25", "floor": "20"}, 20.0),
    ],
)
def test_a_single_run_deviates_when_followed_past_all_that_is_allowed(
    kind: str, rule: dict[str, str], edge: float
) -> None:
    """The printed 50 may be 50.5; from there on the margin counts."""

    def followed(to: float) -> str:
        seeds = [SeedValue(seed="0", value=to, beyond=True)]
        cell = Cell(id="t/a", unit="loss", seeds=seeds)
        expected = expected_cell("t/a", "50", unit="loss", tolerance=tolerance(kind, **rule))
        return one(expected, cell).verdict

    assert followed(50.5 + edge) == "deviates"
    assert followed(50.5 + edge - 0.01) == "inconclusive"


def test_a_single_run_of_a_noisy_kind_never_deviates_by_itself() -> None:
    report = judged([None])
    assert report.verdict == "inconclusive"
    assert report.needed == "a curve that reaches further, and at least 5 seeds"
