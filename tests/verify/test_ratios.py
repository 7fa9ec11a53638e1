"""Ratios of proportions: their intervals, their claims, their tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from kit.manifest.expectation_types import Claim, Derived, ExpectedCell
from kit.results.types import Cell
from kit.verify.pairs import ItemsDiffer, correlation
from kit.verify.proportions import (
    UNBOUNDED,
    Z95,
    Ratio,
    Term,
    mover,
    mover_score,
    newcombe,
    ratio_difference,
)
from kit.verify.special import normal_tail
from kit.verify.verdict import CellReport, ClaimReport
from tests.verify.builders import claim, expected_cell, labels, memory, run, share, tolerance

PARTS = ["g/asr-max/undefended", "g/asr-max/this", "g/asr-max/full"]
GAP = "g/gap-closed/this"


def gap(rates: Sequence[float], n: float, together: float | None = None) -> Ratio:
    """The closed share of a gap, every pair of labels equally correlated."""
    over, under = (
        tuple(Term(w, p, n) for w, p in zip(weights, rates, strict=True))
        for weights in ((1, -1, 0), (1, 0, -1))
    )
    if together is None:
        return Ratio(over, under, None)
    matrix = tuple(tuple(1.0 if i == j else together for j in range(3)) for i in range(3))
    return Ratio(over, under, matrix)


def drawn(rates: Sequence[float], n: int, seed: int = 0) -> list[np.ndarray]:
    """Labels that hang together, because hard items are hard for all."""
    random = np.random.default_rng(seed)
    level = random.standard_normal(n)
    noise = random.standard_normal((len(rates), n))
    return [
        (level + e < np.sqrt(2) * stats.norm.ppf(p)).astype(int)
        for p, e in zip(rates, noise, strict=True)
    ]


def bits(flags: np.ndarray) -> str:
    return "".join(map(str, flags))


def test_two_terms_are_newcombes_interval() -> None:
    terms = (Term(1, 0.3, 50), Term(-1, 0.1, 80))
    assert mover(terms, Z95) == newcombe(0.3, 50, 0.1, 80, Z95)


def test_many_items_give_the_t_test_over_items() -> None:
    """statsmodels' test of the items' mean score, which a sum of paired proportions is."""
    flags, at, n = drawn((0.7, 0.12, 0.02), 200_000), 0.85, 200_000
    lines = [labels(str(i), bits(x)) for i, x in enumerate(flags)]
    matrix = tuple(tuple(correlation(x, y) for y in lines) for x in lines)
    weights = (1 - at, -1.0, at)
    score = sum(w * x for w, x in zip(weights, flags, strict=True))
    theirs = DescrStatsW(score).ttest_mean(0.0)[0]
    terms = tuple(Term(w, float(x.mean()), n) for w, x in zip(weights, flags, strict=True))
    assert mover_score(terms, 0.0, matrix) == pytest.approx(theirs, rel=0.01)
    assert abs(mover_score(terms, 0.0)) < abs(theirs) * 0.99, "pairing is what sharpens it"


@pytest.mark.parametrize("together", [None, 0.4])
@pytest.mark.parametrize("rates", [(0.7, 0.12, 0.02), (0.9, 0.9, 0.0), (0.5, 0.01, 0.0)])
def test_the_interval_ends_where_the_test_stops(
    rates: tuple[float, float, float], together: float | None
) -> None:
    ratio = gap(rates, 208, together)
    low, high = ratio.interval(Z95)
    assert low < ratio.value < high
    assert ratio.tails(low)[0] == pytest.approx(0.025, abs=1e-5)
    assert ratio.tails(high)[1] == pytest.approx(0.025, abs=1e-5)


def test_a_divisor_that_may_be_zero_bounds_nothing() -> None:
    ratio = gap((0.05, 0.02, 0.03), 208)
    assert ratio.interval(Z95) == (-UNBOUNDED, UNBOUNDED)
    assert min(*ratio.tails(-5.0), *ratio.tails(5.0)) > 0.05


def test_a_known_ratio_costs_the_difference_nothing() -> None:
    ratio = gap((0.7, 0.12, 0.02), 208)
    low, high = ratio.interval(Z95)
    assert ratio_difference(ratio, None, 0.8, Z95) == pytest.approx((low - 0.8, high - 0.8))
    both = ratio_difference(ratio, gap((0.7, 0.15, 0.02), 208), 0.8, Z95)
    assert both[0] < low - 0.8 < high - 0.8 < both[1]


@pytest.mark.parametrize("seed", range(5))
def test_correlation_is_pearsons_less_half_an_item(seed: int) -> None:
    x, y = drawn((0.3, 0.6), 60, seed)
    here, there = labels("x", bits(x)), labels("y", bits(y))
    plain = stats.pearsonr(x, y).statistic
    scale = np.sqrt(x.sum() * (60 - x.sum()) * y.sum() * (60 - y.sum()))
    assert correlation(here, there) == pytest.approx(max(plain - 30 / scale, 0) if plain > 0 else 0)
    turned = labels("t", bits(1 - y))
    assert correlation(here, turned) == pytest.approx(min(stats.pearsonr(x, 1 - y).statistic, 0))


def test_correlation_matches_items_by_name() -> None:
    here = labels("x", "1100", ["a", "b", "c", "d"])
    there = labels("y", "0011", ["c", "d", "a", "b"])
    assert correlation(here, there) == correlation(here, here) > 0
    with pytest.raises(ItemsDiffer):
        correlation(here, labels("z", "1100", ["a", "b", "c", "e"]))


def verdict(
    counts: Sequence[int], at: str | None = None, side: str = "at_least", **fields: Any
) -> tuple[CellReport, ClaimReport | None]:
    """The report of a gap of 208 items each, printed as 0.863 of 69.2, 11.5 and 2.4 %."""
    printed = ["69.2", "11.5", "2.4"]
    cells = [expected_cell(id, value, n=208) for id, value in zip(PARTS, printed, strict=True)]
    rule = Derived(formula="gap_closed", cells=PARTS)
    cells.append(
        ExpectedCell(
            id=GAP, unit="ratio", status="reported", place="doc", value="0.863", derived=rule,
            tolerance=tolerance("binomial", margin="0.1"),
        )
    )  # fmt: skip
    u, t, f = counts
    made = [share(id, k, 208) for id, k in zip(PARTS, counts, strict=True)]
    made.append(Cell(id=GAP, unit="ratio", value=(u - t) / (u - f)))
    claims: list[Claim] = []
    if at is not None:
        claims = [claim("threshold", cells=[GAP], value=at, side=side)]
    found = run(cells, made, claims, **fields)
    return found.cells[-1], found.claims[0] if claims else None


@pytest.mark.parametrize(
    ("this", "at", "outcome"),
    [(23, "0.85", "undetermined"), (30, "0.85", "undetermined"), (4, "0.85", "holds"),
     (60, "0.85", "fails"), (23, "0.5", "holds")],
)  # fmt: skip
def test_a_claim_on_a_gap_can_stay_open(this: int, at: str, outcome: str) -> None:
    _, about = verdict((144, this, 5), at)
    assert about is not None
    assert about.outcome == outcome
    assert "Fieller" in about.method


def test_a_claim_is_turned_with_its_side() -> None:
    _, least = verdict((144, 60, 5), "0.85")
    _, most = verdict((144, 60, 5), "0.85", "at_most")
    assert least is not None
    assert most is not None
    assert (least.p, least.p_fails) == (most.p_fails, most.p)


def test_labels_of_the_same_items_decide_sooner() -> None:
    """The same counts, the successes nested within one another."""
    names = dict(zip(PARTS, (144, 18, 4), strict=True))
    lines = {id: labels(id, "1" * k + "0" * (208 - k)) for id, k in names.items()}
    rule = Derived(formula="gap_closed", cells=PARTS)
    cells = [expected_cell(id, None, n=208, status="unreported") for id in PARTS]
    cells.append(ExpectedCell(id=GAP, unit="ratio", status="unreported", place="-", derived=rule))
    about = claim("threshold", cells=[GAP], value="0.85", side="at_least")
    outcomes = []
    for referred in (True, False):
        made = [share(id, k, 208, labels=id if referred else None) for id, k in names.items()]
        made.append(Cell(id=GAP, unit="ratio", value=126 / 140))
        outcomes.append(run(cells, made, [about], labels=memory(*lines.values())).claims[0])
    paired, alone = outcomes
    assert "same items" in paired.method
    assert "independent" in alone.method
    assert paired.p is not None
    assert alone.p is not None
    assert paired.p < alone.p


def test_the_larger_of_two_gaps_of_one_run() -> None:
    other = "g/gap-closed/other"
    parts = [PARTS[0], "g/asr-max/other", PARTS[2]]
    ids = dict(zip([*PARTS, parts[1]], (144, 10, 4, 80), strict=True))
    cells = [expected_cell(id, None, n=208, status="unreported") for id in ids]
    for id, of in ((GAP, PARTS), (other, parts)):
        rule = Derived(formula="gap_closed", cells=of)
        cells.append(
            ExpectedCell(id=id, unit="ratio", status="unreported", place="-", derived=rule)
        )
    made = [share(id, k, 208) for id, k in ids.items()]
    made += [
        Cell(id=GAP, unit="ratio", value=134 / 140),
        Cell(id=other, unit="ratio", value=64 / 140),
    ]
    far = run(cells, made, [claim("order", cells=[other, GAP])]).claims[0]
    assert far.outcome == "holds"
    close = run(cells, made, [claim("order", cells=[other, GAP], margin="0.45")]).claims[0]
    assert close.outcome == "undetermined"


@pytest.mark.parametrize(
    ("counts", "word"),
    [((144, 24, 5), "match"), ((144, 23, 5), "reproduced"), ((144, 34, 5), "inconclusive"),
     ((144, 80, 5), "deviates"), ((144, 1, 0), "deviates"), ((12, 4, 5), "inconclusive")],
)  # fmt: skip
def test_a_printed_gap(counts: tuple[int, int, int], word: str) -> None:
    report, _ = verdict(counts)
    assert report.verdict == word
    if word != "match" and counts[0] > 100:
        assert report.interval is not None
        assert report.p is not None
        assert (report.p < 0.05) == (word == "deviates")
        excludes = report.interval.low > 0 or report.interval.high < 0
        assert excludes == (word == "deviates"), "p and interval say the same"


def test_without_the_published_parts_the_printed_ratio_is_exact() -> None:
    ratio, said = gap((0.7, 0.12, 0.02), 208), 0.8
    low, _ = ratio.interval(Z95)
    wide = ratio_difference(ratio, None, said, Z95)
    assert wide[0] == pytest.approx(low - said)
    assert normal_tail(Z95) == pytest.approx(0.025)
