"""The kind ``seeds`` by independent recomputation: paired, Welch, prediction, no spread at all."""

from __future__ import annotations

from math import sqrt
from statistics import fmean, stdev

import pytest
from msgspec import structs
from scipy import stats

from kit.manifest.expectation_types import Reference
from kit.verify.verdict import CellReport
from tests.verify.builders import expected_cell, one, reference, seeded, seeded_shares, tolerance

HERE = [1.30, 1.10, 1.52, 1.41, 1.05]
THERE = ["1.21", "1.15", "1.33", "1.45", "0.91"]
KNOWN = [float(value) for value in THERE]


def repeated(values: list[str]) -> Reference:
    """A reference whose replicates have the ids that ``seeded`` gives."""
    return structs.replace(reference(values), seeds=[str(i) for i in range(len(values))])


def report(
    values: list[float],
    value: str | None = None,
    known: Reference | None = None,
    margin: str = "0.5",
    unit: str = "loss",
) -> CellReport:
    rule = tolerance("seeds", margin=margin)
    status = "reported" if value is not None else "reference"
    cell = expected_cell(value=value, unit=unit, tolerance=rule, reference=known, status=status)
    return one(cell, seeded("t/a", values, unit=unit))


def ends(made: CellReport, level: float = 0.95) -> tuple[float, float]:
    interval = made.interval if level == 0.95 else made.interval_equivalence
    assert interval is not None
    assert interval.level == level
    return interval.low, interval.high


@pytest.mark.parametrize("level", [0.95, 0.90])
def test_a_published_mean_has_no_noise_and_its_printed_width(level: float) -> None:
    made = report(HERE, "1.2")
    error, df = stdev(HERE), len(HERE) - 1
    half = stats.t.ppf((1 + level) / 2, df) * error * sqrt(1 + 1 / len(HERE)) + 0.05
    assert ends(made, level) == pytest.approx((fmean(HERE) - 1.2 - half, fmean(HERE) - 1.2 + half))
    assert made.difference == pytest.approx(fmean(HERE) - 1.2)


@pytest.mark.parametrize("shift", [0.5, -0.5, 0.0])
def test_p_counts_from_the_edge_of_what_was_printed(shift: float) -> None:
    values = [value + shift for value in HERE]
    made = report(values, "1.2")
    beyond = max(0.0, abs(fmean(values) - 1.2) - 0.05)
    error = stdev(HERE) * sqrt(1 + 1 / len(HERE))
    assert made.p == pytest.approx(2 * stats.t.sf(beyond / error, len(HERE) - 1))


def test_other_replicates_of_the_reference_are_welchs_test() -> None:
    made = report(HERE, None, reference(THERE))
    theirs = stats.ttest_ind(HERE, KNOWN, equal_var=False)
    assert made.p == pytest.approx(theirs.pvalue, rel=1e-6)
    for level in (0.95, 0.90):
        limits = theirs.confidence_interval(level)
        assert ends(made, level) == pytest.approx((limits.low, limits.high), abs=1e-6)


def test_the_same_replicates_are_the_paired_test() -> None:
    made = report(HERE, None, repeated(THERE))
    theirs = stats.ttest_rel(HERE, KNOWN)
    assert made.p == pytest.approx(theirs.pvalue)
    for level in (0.95, 0.90):
        limits = theirs.confidence_interval(level)
        assert ends(made, level) == pytest.approx((limits.low, limits.high))
    assert made.difference == pytest.approx(fmean(HERE) - fmean(KNOWN))
    assert "5 repeated seeds" in made.detail


def test_two_shared_replicates_are_enough_for_pairs() -> None:
    made = report(HERE[:2], None, repeated(THERE[:2]))
    assert made.p == pytest.approx(stats.ttest_rel(HERE[:2], KNOWN[:2]).pvalue)
    assert "repeated" not in report(HERE[:1], None, repeated(THERE[:1])).detail


def test_replicates_equal_on_both_sides_are_no_degrees_of_freedom() -> None:
    values = [*KNOWN[:3], KNOWN[3] + 0.1, KNOWN[4] + 0.2]
    gaps = [0.0, 0.0, 0.0, 0.1, 0.2]
    made = report(values, None, repeated(THERE))
    half = stats.t.ppf(0.975, 1) * stdev(gaps) / sqrt(5)
    assert ends(made) == pytest.approx((fmean(gaps) - half, fmean(gaps) + half))


def test_equal_one_by_one_is_a_match_without_an_interval() -> None:
    made = report(KNOWN, None, repeated(THERE))
    assert (made.verdict, made.difference, made.p) == ("match", 0.0, 1.0)
    assert made.margin == 0.5
    assert "all 5 seeds equal the reference one by one" in made.detail
    off = [*KNOWN[:4], KNOWN[4] + 0.1]
    assert report(off, None, repeated(THERE)).verdict != "match"


def test_equal_differences_of_shares_have_the_items_noise() -> None:
    counts, n = [40, 44, 48], 208
    known = repeated([repr(100 * (k - 4) / n) for k in counts])
    rule = tolerance("seeds", margin="5")
    cell = expected_cell(value=None, status="reference", reference=known, tolerance=rule)
    made = one(cell, seeded_shares("t/a", counts, n))
    assert "equal differences; item sampling stands in" in made.detail
    mean = fmean(counts) / n
    rough = 100 * sqrt(mean * (1 - mean) / n) * sqrt(2) / sqrt(3)
    low, high = ends(made)
    assert (low + high) / 2 == pytest.approx(400 / n)
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 2) * rough, rel=0.02)


def test_equal_differences_of_other_numbers_are_compared_unpaired() -> None:
    made = report([value + 0.1 for value in KNOWN], None, repeated(THERE))
    assert made.p == pytest.approx(stats.ttest_ind([v + 0.1 for v in KNOWN], KNOWN,
                                                   equal_var=False).pvalue)  # fmt: skip
    assert "Welch" in made.detail


def test_a_printed_number_borrows_the_spread_of_the_reference() -> None:
    """The document's own value, far from the reference mean: pooled sd, prediction interval."""
    made = report(HERE, "2.0", reference(THERE), margin="0.1")
    m, k = len(HERE), len(KNOWN)
    pooled = sqrt(((k - 1) * stdev(KNOWN) ** 2 + (m - 1) * stdev(HERE) ** 2) / (m + k - 2))
    error = pooled * sqrt(1 + 1 / m)
    half = stats.t.ppf(0.975, m + k - 2) * error + 0.05
    centre = fmean(HERE) - 2.0
    assert ends(made) == pytest.approx((centre - half, centre + half))
    assert made.p == pytest.approx(2 * stats.t.sf((abs(centre) - 0.05) / error, m + k - 2))
    assert "spread borrowed from the reference" in made.detail
    assert f"{m + k - 1} seeds" in made.detail


def test_a_single_run_borrows_it_too() -> None:
    made = report([1.3], "2.0", reference(THERE), margin="0.1")
    error = stdev(KNOWN) * sqrt(2)
    half = stats.t.ppf(0.975, 4) * error + 0.05
    assert ends(made) == pytest.approx((-0.7 - half, -0.7 + half))


@pytest.mark.parametrize("shares", [False, True])
def test_nothing_that_spreads_lends_no_spread(shares: bool) -> None:
    """Equal seeds here and in the reference, far from the printed value: items where there are."""
    known = reference(["50.0", "50.0", "50.0"])
    rule = tolerance("seeds", margin="1")
    cell = expected_cell(value="60.0", reference=known, tolerance=rule)
    measured = seeded_shares("t/a", [104, 104], 208) if shares else seeded("t/a", [50.0, 50.0])
    made = one(cell, measured)
    assert (made.interval is not None) == shares
    assert ("no spread at all" in made.detail) != shares
    if shares:
        low, high = ends(made)
        assert high - low > 2 * 100 * sqrt(0.25 / 208)


def test_a_reference_mean_without_values_is_as_wide_as_it_is_printed() -> None:
    bare = structs.replace(reference(THERE), mean="1.2", sd="0.2", values=[], seeds=[])
    made = report(HERE, None, bare)
    error = sqrt(stdev(HERE) ** 2 / 5 + 0.2**2 / 5)
    df = error**4 / ((stdev(HERE) ** 2 / 5) ** 2 / 4 + (0.2**2 / 5) ** 2 / 4)
    half = stats.t.ppf(0.975, df) * error + 0.05
    centre = fmean(HERE) - 1.2
    assert ends(made) == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize(
    ("values", "printed", "margin", "verdict", "needed"),
    [
        ([1.3], "1.2", "0.5", "inconclusive", "at least 2 seeds, better 3"),
        ([1.21], "1.2", "0.5", "match", None),
        ([1.3, 1.3], "1.2", "0.5", "inconclusive", "seeds that differ"),
        ([1.3, 1.3], "1.2", "0.05", "deviates", None),
        ([1.1, 1.1], "1.2", "0.05", "deviates", None),
        ([1.5, 1.5], "1.0", "0.5", "inconclusive", "seeds that differ"),
        ([1.2, 1.2], "1.2", "0.5", "match", None),
    ],
)
def test_without_spread_only_equality_and_the_margin_decide(
    values: list[float], printed: str, margin: str, verdict: str, needed: str | None
) -> None:
    made = report(values, printed, margin=margin)
    assert made.verdict == verdict
    assert made.needed is None if needed is None else needed in (made.needed or "")
    assert made.margin == float(margin)
    assert made.difference == pytest.approx(fmean(values) - float(printed))
    assert ("beyond the margin" in made.detail) == (verdict == "deviates")


@pytest.mark.parametrize("known", [None, "paired", "other"])
def test_an_open_cell_says_how_many_replicates_would_decide(known: str | None) -> None:
    if known is None:
        made = report(HERE, "1.0", margin="0.3")
    else:
        made = report(
            HERE, None, repeated(THERE) if known == "paired" else reference(THERE), margin="0.12"
        )
    assert made.verdict == "inconclusive"
    assert made.needed is not None
    assert any(character.isdigit() for character in made.needed)
