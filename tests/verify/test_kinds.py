"""Each tolerance kind through the whole verdict: ordinary cases, and the two sides of each edge."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nextafter

import pytest

from kit.errors import InvalidInput
from kit.manifest.printed import Printed
from kit.results.types import Cell
from kit.verify.finding import Finding
from kit.verify.kinds.items import flip
from kit.verify.verdict import CellReport
from tests.verify.builders import (
    expected_cell,
    labels,
    memory,
    one,
    one_curve,
    reference,
    seeded,
    seeded_shares,
    share,
    tolerance,
)


def number(value: float, unit: str = "loss") -> Cell:
    return Cell(id="t/a", unit=unit, value=value)


def plain(kind: str, printed: str, value: float, **fields: str) -> CellReport:
    return one(
        expected_cell(value=printed, unit="loss", tolerance=tolerance(kind, **fields)),
        number(value),
    )


# -- exact, absolute, relative: the boundary belongs to the inside, one float further does not


@pytest.mark.parametrize("edge", [1.85, 1.95])
def test_exact_at_the_rounding_boundary(edge: float) -> None:
    outside = -inf if edge < 1.9 else inf
    assert plain("exact", "1.9", edge).verdict == "match"
    assert plain("exact", "1.9", nextafter(edge, outside)).verdict == "deviates"
    assert plain("exact", "1.9", nextafter(edge, 1.9)).verdict == "match"


def test_trailing_zero_is_precision() -> None:
    assert plain("exact", "1.9", 1.93).verdict == "match"
    assert plain("exact", "1.90", 1.93).verdict == "deviates"


@pytest.mark.parametrize("edge", [1.25, 2.55])
def test_absolute_at_margin_plus_half_a_digit(edge: float) -> None:
    outside = -inf if edge < 1.9 else inf
    assert plain("absolute", "1.9", edge, margin="0.6").verdict == "reproduced"
    assert plain("absolute", "1.9", nextafter(edge, outside), margin="0.6").verdict == "deviates"


def test_absolute_equal_at_printed_precision_is_match() -> None:
    report = plain("absolute", "1.9", 1.94, margin="0.6")
    assert (report.verdict, report.margin) == ("match", 0.6)


def test_relative_takes_the_larger_of_share_and_floor() -> None:
    assert plain("relative", "100", 105.5, margin="0.05", floor="1").verdict == "reproduced"
    beyond = nextafter(105.5, inf)
    assert plain("relative", "100", beyond, margin="0.05", floor="1").verdict == "deviates"
    assert plain("relative", "0.10", 0.305, margin="0.05", floor="0.2").verdict == "reproduced"


def test_relative_is_refused_for_proportions() -> None:
    with pytest.raises(InvalidInput, match="refused for proportions"):
        one(
            expected_cell(tolerance=tolerance("relative", margin="0.05", floor="0")),
            share("t/a", 10, 208),
        )


def test_exact_count() -> None:
    def counted(value: float) -> str:
        rule = tolerance("exact")
        return one(expected_cell(value="208", unit="count", tolerance=rule),
                   Cell(id="t/a", unit="count", value=value)).verdict  # fmt: skip

    assert counted(208) == "match"
    assert counted(208.4) == "deviates"


# -- binomial


def test_what_a_kind_needs_of_the_table() -> None:
    value_only = one(expected_cell(n=208), Cell(id="t/a", unit="percent", value=4.8))
    assert value_only.verdict == "invalid"
    assert "'k' and 'n'" in value_only.detail
    rule = tolerance("paired", margin="5")
    no_labels = one(expected_cell(n=208, labels="published", tolerance=rule), share("t/a", 10, 208))
    assert no_labels.verdict == "invalid"
    assert "'labels'" in no_labels.detail


def test_binomial_four_outcomes() -> None:
    def verdict(printed: str, k: int, n: int = 208) -> str:
        return one(expected_cell(value=printed, n=n), share("t/a", k, n)).verdict

    assert verdict("4.8", 10) == "match"
    assert verdict("0.5", 2) == "reproduced"
    assert verdict("50.0", 110) == "inconclusive"
    assert verdict("0.5", 20) == "deviates"


def test_better_than_published_deviates_too() -> None:
    better = expected_cell(value="50.0", n=208, direction="lower_is_better")
    report = one(better, share("t/a", 60, 208))
    assert report.verdict == "deviates"
    assert report.detail.endswith("better than published, and a deviation all the same")
    assert "better" not in one(better, share("t/a", 150, 208)).detail


def test_equal_within_the_margin_and_yet_shifted() -> None:
    report = one(expected_cell(value="50.0", n=14042), share("t/a", 7300, 14042))
    assert (report.verdict, report.shifted) == ("reproduced", True)


def test_inconclusive_says_what_would_decide_and_that_decides() -> None:
    report = one(expected_cell(value="50.0", n=208), share("t/a", 104 + 2, 208))
    assert report.verdict == "inconclusive"
    assert report.needed is not None
    n = int(report.needed.split()[1].replace(",", ""))
    k = round(n * 106 / 208)
    again = one(expected_cell(value="50.0", n=n, k=n // 2), share("t/a", k, n))
    assert again.verdict in ("reproduced", "deviates")


def test_margin_within_printed_precision_never_decides() -> None:
    rule = tolerance("binomial", margin="0.2")
    n = 10**9
    report = one(expected_cell(value="50", n=n, tolerance=rule), share("t/a", 505_000_001, n))
    assert report.verdict == "inconclusive"
    assert report.needed is not None
    assert "printed precision" in report.needed


# -- paired and flip


def pair(here: str, there: str, **fields: str) -> CellReport:
    n = len(here)
    cell = expected_cell(
        value=f"{100 * there.count('1') / n:.1f}",
        n=n,
        labels="published",
        tolerance=tolerance("paired", **({"margin": "5"} | fields)),
    )
    return one(
        cell,
        share("t/a", here.count("1"), n, labels="here"),
        labels=memory(labels("here", here)),
        published=memory(labels("published", there)),
    )


def test_paired_needs_identical_labels_to_match() -> None:
    base = "1" * 20 + "0" * 188
    assert pair(base, base).verdict == "match"
    swapped = pair("0" + "1" * 20 + "0" * 187, base)
    assert (swapped.verdict, swapped.flip_rate) == ("reproduced", 2 / 208)
    assert pair("1" * 40 + "0" * 168, base).verdict == "deviates"


def test_paired_decides_where_proportions_cannot() -> None:
    base = "1" * 104 + "0" * 104
    here = "1" * 105 + "0" * 103
    assert pair(here, base).verdict == "reproduced"
    assert one(expected_cell(value="50.0", n=208), share("t/a", 105, 208)).verdict == "inconclusive"


def test_many_flips_without_net_difference_are_not_identity() -> None:
    base = "1" * 104 + "0" * 104
    here = "0" * 12 + "1" * 92 + "1" * 12 + "0" * 92
    report = pair(here, base, margin="10", flip_rate="0.02")
    assert report.difference == 0
    assert report.verdict == "deviates"
    assert pair(here, base, margin="10", flip_rate="0.2").verdict == "reproduced"


def test_items_are_matched_by_id() -> None:
    here = labels("here", "1100", ["a", "b", "c", "d"])
    there = labels("published", "0011", ["d", "c", "b", "a"])
    cell = expected_cell(value="50", n=4, labels="published",
                         tolerance=tolerance("paired", margin="5"))  # fmt: skip
    report = one(cell, share("t/a", 2, 4, labels="here"), labels=memory(here),
                 published=memory(there))  # fmt: skip
    assert report.verdict == "match"


def test_other_items_are_invalid() -> None:
    here = labels("here", "1100", ["a", "b", "c", "x"])
    there = labels("published", "1100", ["a", "b", "c", "d"])
    cell = expected_cell(value="50", n=4, labels="published",
                         tolerance=tolerance("paired", margin="5"))  # fmt: skip
    report = one(cell, share("t/a", 2, 4, labels="here"), labels=memory(here),
                 published=memory(there))  # fmt: skip
    assert report.verdict == "invalid"
    assert "'x'" in report.detail


@pytest.mark.parametrize(
    ("k", "verdict"), [(10, "match"), (13, "reproduced"), (16, "inconclusive"), (40, "deviates")]
)
def test_flip(k: int, verdict: str) -> None:
    rule = tolerance("flip", margin="6", flip_rate="0.05")
    assert one(expected_cell(n=208, tolerance=rule), share("t/a", k, 208)).verdict == verdict


# -- seeds


def over_seeds(values: list[float], known: list[str], margin: str = "5") -> CellReport:
    cell = expected_cell(value=None, status="reference", reference=reference(known),
                         tolerance=tolerance("seeds", margin=margin))  # fmt: skip
    return one(cell, seeded("t/a", values))


def test_seeds_four_outcomes() -> None:
    known = ["50.1", "51.3", "50.6"]
    assert over_seeds([50.2, 50.9, 51.1], known).verdict == "reproduced"
    assert over_seeds([50.1, 51.3, 50.6], known).verdict == "match"
    assert over_seeds([47.0, 52.0, 57.0], known).verdict == "inconclusive"
    assert over_seeds([70.0, 71.0, 70.2], known).verdict == "deviates"


def repeated(values: list[float], known: list[str]) -> CellReport:
    from msgspec import structs

    block = structs.replace(reference(known), seeds=[str(i) for i in range(len(known))])
    cell = expected_cell(value=None, status="reference", reference=block,
                         tolerance=tolerance("seeds", margin="5"))  # fmt: skip
    return one(cell, seeded("t/a", values))


def test_the_same_seeds_again_are_compared_seed_by_seed() -> None:
    known = ["10", "50", "90"]
    assert over_seeds([10.2, 50.1, 90.4], known).verdict == "inconclusive"
    again = repeated([10.2, 50.1, 90.4], known)
    assert again.verdict == "reproduced"
    assert "3 repeated seeds" in again.detail
    assert repeated([10.0, 50.0, 90.0], known).verdict == "match"
    assert repeated([90.0, 50.0, 10.0], known).verdict == "inconclusive"
    assert repeated([30.0, 71.0, 109.0], known).verdict == "deviates"


def test_a_reference_that_is_not_there_yet_compares_nothing() -> None:
    cell = expected_cell(value=None, status="reference", tolerance=tolerance("seeds", margin="5"))
    report = one(cell, seeded("t/a", [50.0, 51.0]))
    assert report.verdict == "not-compared"
    assert "kit reference" in report.detail


def test_a_reference_mean_is_no_rounded_number() -> None:
    block = reference(["1.5", "1.5"])
    cell = expected_cell(value=None, unit="loss", reference=block, tolerance=tolerance("exact"))
    assert one(cell, number(1.5)).verdict == "match"
    assert one(cell, number(1.54)).verdict == "deviates"


def test_one_run_inside_the_prediction_interval() -> None:
    report = over_seeds([53.0], ["50.1", "51.3", "50.6"])
    assert report.interval is not None
    assert report.interval.low < 0 < report.interval.high
    assert over_seeds([60.0], ["50.1", "51.3", "50.6"]).verdict == "deviates"


def test_one_run_against_one_number_stays_open() -> None:
    cell = expected_cell(value="50.0", tolerance=tolerance("seeds", margin="5"))
    report = one(cell, Cell(id="t/a", unit="percent", value=52.0))
    assert report.verdict == "inconclusive"
    assert report.needed == "at least 2 seeds, better 3"


def test_no_spread_at_0_of_n_uses_item_sampling() -> None:
    cell = expected_cell(value=None, status="reference", reference=reference(["0", "0", "0"]),
                         tolerance=tolerance("seeds", margin="5"))  # fmt: skip
    assert one(cell, seeded_shares("t/a", [0, 0, 0], 208)).verdict == "match"
    assert one(cell, seeded_shares("t/a", [1, 1, 1], 208)).verdict == "reproduced"
    assert one(cell, seeded_shares("t/a", [60, 60, 60], 208)).verdict == "deviates"


def test_no_spread_and_no_items_is_said_honestly() -> None:
    report = over_seeds([51.0, 51.0], ["50", "50"])
    assert report.verdict == "inconclusive"
    assert "no spread" in report.detail
    assert over_seeds([56.0, 56.0], ["50", "50"]).verdict == "deviates"


def test_document_number_with_borrowed_spread() -> None:
    cell = expected_cell(value="60.0", reference=reference(["50.1", "51.3", "50.6"]),
                         tolerance=tolerance("seeds", margin="5"))  # fmt: skip
    report = one(cell, seeded("t/a", [50.0, 51.0, 50.5]))
    assert report.verdict == "deviates"
    assert "borrowed" in report.detail


def test_items_and_seeds_are_never_pooled() -> None:
    report = one(expected_cell(n=208), seeded_shares("t/a", [10, 11, 9], 208))
    assert report.verdict == "invalid"
    assert "never pooled" in report.detail


# -- trajectory and bound


def curve(ys: list[float], drift: str | None = None) -> CellReport:
    fields = {"margin": "0.1"} | ({"drift": drift} if drift else {})
    cell = expected_cell(value=None, unit="loss", tolerance=tolerance("trajectory", **fields),
                         series=[["0", "2.000"], ["10", "1.500"], ["20", "1.200"]])  # fmt: skip
    return one_curve(cell, {"": [(x, y) for x, y in zip([0, 10, 20], ys, strict=False)]}, "loss")


def test_trajectory_pointwise_and_zero_mean() -> None:
    assert curve([2.0, 1.5, 1.2]).verdict == "match"
    assert curve([2.08, 1.42, 1.21]).verdict == "reproduced"
    assert curve([2.2, 1.4, 1.1]).verdict == "deviates"
    drifting = [2.08, 1.58, 1.28]
    assert curve(drifting).verdict == "deviates"
    assert curve(drifting, drift="0.1").verdict == "reproduced"
    assert curve([2.0, 1.5]).verdict == "invalid"


def test_a_curve_in_another_unit_is_converted() -> None:
    cell = expected_cell(value=None, unit="percent", series=[["0", "50.0"], ["10", "2.5"]],
                         tolerance=tolerance("trajectory", margin="1"))  # fmt: skip
    found = one_curve(cell, {"": [(0, 0.5), (10, 0.025)]}, "fraction")
    assert found.verdict == "match"


def bounded(k: int, bound: str = "1", side: str = "at_most", n: int = 208) -> CellReport:
    rule = tolerance("bound", bound=bound, side=side)
    return one(expected_cell(value=None, n=n, tolerance=rule), share("t/a", k, n))


def test_bound_is_decided_by_the_limit() -> None:
    assert bounded(0, "1.5").verdict == "reproduced"
    zero = bounded(0, "1")
    assert zero.verdict == "inconclusive"
    assert zero.needed is not None
    assert zero.needed.startswith("about")
    assert zero.interval_equivalence is not None
    assert 1 - (1 - zero.interval_equivalence.level) / 2 == pytest.approx(0.95), "one-sided"
    assert bounded(9, "1").verdict == "deviates"
    assert bounded(205, "95", "at_least").verdict == "reproduced"
    assert bounded(150, "95", "at_least").verdict == "deviates"


def test_bound_over_seeds_and_of_a_single_number() -> None:
    rule = tolerance("bound", bound="3", side="at_most")
    cell = expected_cell(value=None, tolerance=rule)
    assert one(cell, seeded("t/a", [1.0, 1.2, 0.9])).verdict == "reproduced"
    assert one(cell, seeded("t/a", [2.0, 3.5, 2.5])).verdict == "inconclusive"
    minutes = expected_cell(value=None, unit="minutes", tolerance=rule)
    assert one(minutes, Cell(id="t/a", unit="seconds", value=180)).verdict == "reproduced"
    assert one(minutes, Cell(id="t/a", unit="seconds", value=181)).verdict == "deviates"


@pytest.mark.parametrize("side", ["at_most", "at_least"])
@pytest.mark.parametrize("k", [3, 90, 104, 200])
def test_the_difference_from_a_bound_is_measured_minus_bound(side: str, k: int) -> None:
    """With and without a noise model, whichever side was asked."""
    rule = tolerance("bound", bound="50", side=side)
    bare = one(expected_cell(value=None, tolerance=rule), number(100 * k / 208, "percent"))
    for report in (bounded(k, "50", side), bare):
        assert report.value is not None
        assert report.difference == pytest.approx(report.value - 50)
    assert "no noise model" in bare.detail


@pytest.mark.parametrize(("k", "rate", "margin"), [(16, "0.05", "6"), (18, "0.1", "3"),
                                                   (13, "0.1", "3"), (18, "0.1", "8")])  # fmt: skip
def test_the_items_that_an_open_flip_asks_for_decide_it(k: int, rate: str, margin: str) -> None:
    """So many items settle the same proportions, in the exact distribution; far fewer do not."""

    def at(n: int) -> Finding:
        count = Fraction(10 * n, 208)
        said = Printed("", 100 * count / n, Fraction(0))
        return flip(round(k * n / 208), n, said, count, Fraction(0), Fraction(margin),
                    Fraction(rate), "percent")  # fmt: skip

    now = at(208)
    assert now.verdict == "inconclusive"
    assert now.needed is not None
    asked = int(now.needed.split()[1].replace(",", ""))
    assert asked > 208
    assert at(round(1.15 * asked)).verdict != "inconclusive"
    assert at(max(208, round(0.7 * asked))).verdict == "inconclusive"
