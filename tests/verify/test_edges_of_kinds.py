"""Edges of the kinds for single numbers, of bounds, and of the two tests behind an outcome."""

from __future__ import annotations

from fractions import Fraction
from math import sqrt
from statistics import fmean, stdev
from typing import Any

import pytest
from scipy import stats

from kit.errors import InvalidInput
from kit.manifest.expectation_types import Tolerance
from kit.results.types import Cell
from kit.verify.cells import _only, judge
from kit.verify.core import Subject, verify
from kit.verify.finding import excludes_zero, inside, judged, scaled
from kit.verify.kinds.plain import absolute, bound, exact, limits, never, relative
from kit.verify.measurement import Measurement, Seed, measure
from kit.verify.numbers import printed
from tests.verify.builders import (
    expectation,
    expected_cell,
    labels,
    line_of,
    memory,
    one,
    seeded,
    seeded_shares,
    share,
    table,
    tolerance,
    trajectory_cell,
)


def measured(cell: Cell, unit: str | None = None) -> Measurement:
    return measure(cell, unit or cell.unit, "a test", None)


@pytest.mark.parametrize(
    ("interval", "within", "apart"),
    [
        ((-1.0, 1.0), True, False),
        ((-1.1, 1.0), False, False),
        ((-1.0, 1.1), False, False),
        ((0.0, 0.5), True, False),
        ((-0.5, 0.0), True, False),
        ((0.1, 0.5), True, True),
        ((-0.5, -0.1), True, True),
    ],
)
def test_ends_belong_to_the_inside(
    interval: tuple[float, float], within: bool, apart: bool
) -> None:
    assert inside(interval, 1.0) is within
    assert excludes_zero(interval) is apart


def test_an_interval_in_the_cells_unit() -> None:
    made = scaled((-0.02, 0.05), 0.9, 100.0)
    assert (made.low, made.high, made.level) == (-2.0, 5.0, 0.9)
    same = scaled((-0.02, 0.05), 0.9)
    assert (same.low, same.high) == (-0.02, 0.05)


def two(**fields: Any) -> Any:
    given: dict[str, Any] = {
        "identical": False, "difference": 0.02, "wide": (-0.04, 0.08), "narrow": (-0.03, 0.07),
        "margin": 0.07, "p": 0.3, "unit": "percent", "scale": 100.0, "how": "interval",
    }  # fmt: skip
    return judged(**given | fields)


def test_a_finding_stands_in_the_cells_unit() -> None:
    made = two()
    assert made.verdict == "reproduced"
    assert (made.difference, made.margin, made.p) == (2.0, pytest.approx(7.0), 0.3)
    assert made.interval is not None
    assert made.interval_equivalence is not None
    assert (made.interval.low, made.interval.high, made.interval.level) == (-4.0, 8.0, 0.95)
    narrow = made.interval_equivalence
    assert (narrow.low, narrow.high, narrow.level) == (-3.0, pytest.approx(7.0), 0.90)
    assert made.detail == "difference +2.0 points; 95 % interval -4.0 to +8.0, margin 7"
    assert two(identical=True).detail.startswith("equal at printed precision; 95 %")
    plain = two(scale=1.0, unit="loss")
    assert (plain.difference, plain.margin) == (0.02, 0.07)


@pytest.mark.parametrize(
    ("wide", "text"),
    [
        ((-0.004, 0.020), "difference +0.012; 95 % interval -0.004 to +0.020"),  # half 0.012
        ((0.30, 0.42), "difference +0.012; 95 % interval +0.300 to +0.420"),  # 0.06
        ((-0.25, 0.25), "difference +0.01; 95 % interval -0.25 to +0.25"),
        ((-1.0, 2.0), "difference 0.0; 95 % interval -1.0 to +2.0"),
    ],
)
def test_digits_are_those_that_half_of_the_wide_interval_supports(
    wide: tuple[float, float], text: str
) -> None:
    made = two(difference=0.0124, wide=wide, unit="loss", scale=1.0)
    assert made.detail.startswith(f"{text}, margin")


@pytest.mark.parametrize(
    ("identical", "wide", "margin", "verdict", "shifted"),
    [
        (False, (0.01, 0.05), 0.07, "reproduced", True),
        (False, (0.0, 0.05), 0.07, "reproduced", False),
        (True, (0.01, 0.05), 0.07, "match", False),
        (False, (0.01, 0.05), 0.06, "deviates", False),
        (False, (-0.01, 0.05), 0.06, "inconclusive", False),
    ],
)
def test_equal_within_the_margin_and_yet_shifted(
    identical: bool, wide: tuple[float, float], margin: float, verdict: str, shifted: bool
) -> None:
    made = two(identical=identical, wide=wide, margin=margin)
    assert (made.verdict, made.shifted) == (verdict, shifted)
    assert ("yet shifted" in made.detail) is shifted


STEP = Fraction(1, 10**6)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("gap", "verdict"),
    [("0", "match"), ("0.05", "match"), ("0.050001", "reproduced"), ("0.55", "reproduced"),
     ("0.550001", "deviates")],
)  # fmt: skip
def test_edges_of_an_absolute_margin(gap: str, verdict: str, sign: int) -> None:
    made = absolute(Fraction("4.8") + sign * Fraction(gap), printed("4.8"), Fraction("0.5"), "loss")
    assert made.verdict == verdict
    assert made.difference == pytest.approx(sign * float(gap))
    assert made.margin == 0.5


@pytest.mark.parametrize("said", ["10.0", "-10.0"])
@pytest.mark.parametrize(
    ("margin", "floor", "allowed"), [("0.1", "0.2", 1.0), ("0.1", "3", 3.0), ("0", "0", 0.0)]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_edges_of_a_relative_margin(
    said: str, margin: str, floor: str, allowed: float, sign: int
) -> None:
    edge = Fraction(allowed) + Fraction("0.05")
    for gap, verdict in ((edge, "reproduced"), (edge + STEP, "deviates")):
        value = Fraction(said) + sign * gap
        made = relative(value, printed(said), Fraction(margin), Fraction(floor), "loss")
        assert made.verdict == (verdict if allowed or verdict == "deviates" else "match")
        assert made.margin == allowed
    words = f"margin {float(margin) * 100:g} % of the published value = {allowed:g}"
    assert words in made.detail


@pytest.mark.parametrize("sign", [1, -1])
def test_edges_of_exact_equality(sign: int) -> None:
    same = exact(Fraction("4.8") + sign * Fraction("0.05"), printed("4.8"), "percent")
    other = exact(Fraction("4.8") + sign * Fraction("0.06"), printed("4.8"), "percent")
    assert (same.verdict, same.margin) == ("match", 0.0)
    assert (other.verdict, other.margin) == ("deviates", 0.0)
    assert other.detail == f"{'+' if sign > 0 else '-'}0.06 points; exact equality asked"


@pytest.mark.parametrize(
    ("cell", "whole"), [(share("t/a", 9, 208), 100), (share("t/a", 9, 208, "fraction"), 1)]
)
def test_limits_of_a_proportion_are_exact(cell: Cell, whole: int) -> None:
    low, high, how = limits(measured(cell)) or (0, 0, "")
    exactly = stats.binomtest(9, 208).proportion_ci(0.90, method="exact")
    assert (low, high) == pytest.approx((whole * exactly.low, whole * exactly.high))
    assert how == "9 of 208"


@pytest.mark.parametrize("unit", ["loss", "percent"])
@pytest.mark.parametrize("values", [[0.1, -0.4, 0.2], [99.0, 100.2, 100.5]])
def test_limits_over_seeds_are_those_of_t(unit: str, values: list[float]) -> None:
    """Of numbers without counts they may pass 0 and 100."""
    low, high, how = limits(measured(seeded("t/a", values, unit))) or (0, 0, "")
    reach = stats.t.ppf(0.95, 2) * stdev(values) / sqrt(3)
    assert (low, high) == pytest.approx((fmean(values) - reach, fmean(values) + reach))
    assert how == "3 seeds"


@pytest.mark.parametrize(("counts", "end"), [([0, 1, 0], 0), ([20, 19, 20], 1)])
def test_limits_of_shares_over_seeds_stay_within_the_scale(counts: list[int], end: int) -> None:
    made = limits(measured(seeded_shares("t/a", counts, 20)))
    assert made is not None
    assert made[end] == (0.0, 100.0)[end]
    assert 0.0 < made[1 - end] < 100.0


@pytest.mark.parametrize(("k", "n"), [(None, None), (3, None), (None, 9)])
def test_without_counts_and_seeds_there_are_no_limits(k: int | None, n: int | None) -> None:
    assert limits(Measurement("t/a", "loss", Fraction(3), k, n, (), None, ())) is None
    equal = Seed("0", Fraction(1), None, None, None)
    same = Measurement("t/a", "loss", Fraction(1), None, None, (equal, equal), None, ())
    assert limits(same) is None


@pytest.mark.parametrize(
    ("value", "side", "verdict"),
    [("3", "at_most", "reproduced"), ("2.9", "at_most", "deviates"),
     ("3", "at_least", "reproduced"), ("3.1", "at_least", "deviates")],
)  # fmt: skip
def test_a_number_alone_is_held_to_the_bound_as_it_stands(
    value: str, side: str, verdict: str
) -> None:
    alone = Measurement("t/a", "loss", Fraction(3), None, None, (), None, ())
    made = bound(alone, Fraction(value), side)
    assert made.verdict == verdict
    assert made.difference == pytest.approx(3 - float(value))
    assert made.margin == float(value)
    assert made.detail == f"3, {side.replace('_', ' ')} {value} asked; no noise model"


@pytest.mark.parametrize("cell", [share("t/a", 9, 208), seeded("t/a", [1.0, 2.0, 2.5], "loss")])
def test_a_limit_at_the_bound_belongs_to_the_side_that_is_asked(cell: Cell) -> None:
    given = measured(cell)
    low, high, _ = limits(given) or (0.0, 0.0, "")
    for value, side, verdict in (
        (high, "at_most", "reproduced"), (low, "at_most", "inconclusive"),
        (low, "at_least", "reproduced"), (high, "at_least", "inconclusive"),
        (high * 1.001, "at_least", "deviates"), (low * 0.999, "at_most", "deviates"),
    ):  # fmt: skip
        made = bound(given, Fraction(value), side)
        assert made.verdict == verdict
        assert (made.needed is None) is (verdict != "inconclusive")
        assert made.margin == value
        assert made.interval_equivalence is not None
        interval = made.interval_equivalence
        assert interval.level == 0.90
        assert (interval.low, interval.high) == pytest.approx((low - value, high - value))


@pytest.mark.parametrize(
    ("values", "side", "text"),
    [
        ([4.8, 5.2], "at_most", "5.0 (2 seeds), one-sided 95 % upper limit 6.3, at most 5.1"),
        ([4.9, 5.1], "at_most", "5.00 (2 seeds), one-sided 95 % upper limit 5.63, at most 5.1"),
        ([4.9, 5.1], "at_least", "5.00 (2 seeds), one-sided 95 % lower limit 4.37, at least 5.1"),
    ],
)
def test_a_bound_in_words(values: list[float], side: str, text: str) -> None:
    """Half of the interval is 1.26 for the first and 0.63 for the others."""
    made = bound(measured(seeded("t/a", values, "loss")), Fraction("5.1"), side)
    assert made.detail == f"{text} asked"


def followed(*last: float, beyond: int | None = None) -> Measurement:
    """Crossings; the first few are only known to be later (all unless said)."""
    many = len(last) if beyond is None else beyond
    seeds = tuple(
        Seed(str(i), Fraction(str(x)), None, None, None, i < many) for i, x in enumerate(last)
    )
    return Measurement("t/a", "count", None, None, None, seeds, None, ())


@pytest.mark.parametrize(
    ("last", "said", "rule", "deviates"),
    [
        (15, "10", {"kind": "absolute", "margin": "5"}, True),
        (14, "10", {"kind": "absolute", "margin": "5"}, False),
        (10.04, "10.0", {"kind": "absolute", "margin": "0"}, False),
        (10.05, "10.0", {"kind": "absolute", "margin": "0"}, True),
        (10, "10", {"kind": "exact"}, True),
        (9, "10", {"kind": "exact"}, False),
        (15, "10", {"kind": "relative", "margin": "0.5", "floor": "2"}, True),
        (14, "10", {"kind": "relative", "margin": "0.5", "floor": "2"}, False),
        (17, "10", {"kind": "relative", "margin": "0.5", "floor": "7"}, True),
        (16, "10", {"kind": "relative", "margin": "0.5", "floor": "7"}, False),
        (-7, "-10", {"kind": "relative", "margin": "0.5", "floor": "0"}, False),
        (-5, "-10", {"kind": "relative", "margin": "0.5", "floor": "0"}, True),
        (99, "10", {"kind": "seeds", "margin": "5"}, False),
    ],
)
def test_a_run_that_never_crossed_deviates_past_all_that_is_allowed(
    last: float, said: str, rule: dict[str, str], deviates: bool
) -> None:
    kind = Tolerance(reason="made", **rule)  # type: ignore[arg-type]
    made = never(followed(last), expected_cell(value=said, unit="count", tolerance=kind), kind)
    assert made.verdict == ("deviates" if deviates else "inconclusive")
    assert (made.needed is None) is deviates


@pytest.mark.parametrize(("seeds", "deviates"), [(5, False), (6, True)])
def test_seeds_that_never_crossed_deviate_by_the_sign_test(seeds: int, deviates: bool) -> None:
    """Two-sided, 2 / 2^5 is more than 5 % and 2 / 2^6 is not."""
    rule = tolerance("seeds", margin="5")
    cell = expected_cell(value="10", unit="count", tolerance=rule)
    made = never(followed(*[50.0] * seeds), cell, rule)
    assert made.p == pytest.approx(2 / 2**seeds)
    assert made.verdict == ("deviates" if deviates else "inconclusive")
    assert (made.needed is None) is deviates


@pytest.mark.parametrize(("side", "other"), [("at_least", "at_most"), ("at_most", "at_least")])
@pytest.mark.parametrize("seeds", [1, 4, 5])
def test_a_bound_on_crossings_that_did_not_happen(side: str, other: str, seeds: int) -> None:
    """One-sided, 1 / 2^4 is more than 5 % and 1 / 2^5 is not; a single run shows nothing."""
    rule = tolerance("bound", bound="10", side=side)
    made = never(followed(*[50.0] * seeds), expected_cell(unit="count", tolerance=rule), rule)
    shown = "reproduced" if side == "at_least" else "deviates"
    assert made.verdict == (shown if seeds == 5 else "inconclusive")
    assert f"{side.replace('_', ' ')} 10 asked" in made.detail
    assert (made.needed is None) is (seeds == 5)
    assert ("one run" in made.detail) is (seeds == 1)
    assert made.margin == (None if seeds == 1 else 10.0)


@pytest.mark.parametrize(
    ("count", "blur", "whole"),
    [("10", "0.4", 10), ("9.7", "0.4", 10), ("10.3", "0.4", 10), ("10.5", "0.2", None),
     ("10.5", "0.5", None), ("10", "1", None), ("10", "0", 10), ("0", "0.9", 0)],
)  # fmt: skip
def test_the_only_whole_number_within_the_blur(count: str, blur: str, whole: int | None) -> None:
    assert _only(Fraction(count), Fraction(blur)) == whole


@pytest.mark.parametrize("unit", ["percent", "fraction"])
@pytest.mark.parametrize(
    ("share_", "k", "refused"),
    [("0", 0, False), ("1", 50, False), ("1.01", None, True), ("-0.01", None, True),
     ("0.5", 51, True), ("0.5", 50, False), ("0.5", None, False)],
)  # fmt: skip
def test_a_published_share_lies_within_the_scale(
    unit: str, share_: str, k: int | None, refused: bool
) -> None:
    said = share_ if unit == "fraction" else f"{float(share_) * 100:g}"
    cell = expected_cell(value=said, unit=unit, n=50, k=k, tolerance=tolerance("binomial", margin=
                         "5" if unit == "percent" else "0.05"))  # fmt: skip
    given = measured(share("t/a", 20, 50, unit))
    if not refused:
        assert judge(cell, given, None, "here").verdict != "invalid"
        return
    with pytest.raises(InvalidInput, match="is no share of items") as error:
        judge(cell, given, None, "here")
    assert (f", {k} of 50 items" in str(error.value)) is (k is not None)


@pytest.mark.parametrize("k", [None, 10])
def test_flips_count_from_the_only_count_that_prints_so(k: int | None) -> None:
    """4.8 % of 208 is 10 items and no other: no rounding is left in the difference."""
    rule = tolerance("flip", margin="5", flip_rate="0.05")
    cell = expected_cell(value="4.8", n=208, k=k, tolerance=rule)
    assert one(cell, share("t/a", 10, 208)).verdict == "match"
    narrow = one(cell, share("t/a", 12, 208))
    loose = one(expected_cell(value="5", n=208, tolerance=rule), share("t/a", 12, 208))
    assert narrow.interval is not None
    assert loose.interval is not None
    middle = (narrow.interval.low + narrow.interval.high) / 2
    assert middle == pytest.approx(100 * 2 / 208, abs=0.05)
    widths = [i.high - i.low for i in (narrow.interval, loose.interval)]
    assert widths[0] < widths[1]


def test_other_counts_than_the_published_are_no_equality() -> None:
    cell = expected_cell(value="4.8", n=208, k=10, tolerance=tolerance("exact"))
    same, other = (one(cell, share("t/a", k, 208)) for k in (10, 11))
    assert (same.verdict, same.margin) == ("match", 0.0)
    assert (other.verdict, other.margin) == ("deviates", 0.0)
    assert other.detail == "11 items against 10; exact equality asked"
    assert other.difference == pytest.approx(100 * 11 / 208 - 4.8)
    uncounted = one(cell, Cell(id="t/a", unit="percent", value=4.82))
    assert uncounted.verdict == "match"


@pytest.mark.parametrize(("n", "words"), [(20, ""), (21, "field 'n' of seed 0 is 20, ")])
def test_every_seed_rests_on_the_published_items(n: int, words: str) -> None:
    rule = tolerance("bound", bound="90", side="at_most")
    cell = expected_cell(value="20", n=n, tolerance=rule)
    made = one(cell, seeded_shares("t/a", [3, 4, 5], 20))
    assert (made.verdict == "invalid") is bool(words)
    assert words in made.detail


@pytest.mark.parametrize("kind", ["binomial", "paired", "flip"])
def test_seeds_are_no_items(kind: str) -> None:
    rule = tolerance(kind, margin="5", **({"flip_rate": "0.1"} if kind == "flip" else {}))
    made = one(expected_cell(tolerance=rule), seeded_shares("t/a", [3, 4], 20))
    assert made.verdict == "invalid"
    assert "never pooled" in made.detail


def maximum(*seeds: float) -> Any:
    points = {str(i): [(0.0, -9.0), (1.0, y)] for i, y in enumerate(seeds)}
    rule = tolerance("bound", bound="5", side="at_most")
    cell = expected_cell("t/a:max", None, unit="loss", tolerance=rule)
    listed = expected_cell("t/a", None, unit="loss", tolerance=None)
    made = table([trajectory_cell("t/a")], series=[line_of("t/a", points)])
    verdict = verify(Subject(expected=expectation([listed, cell]), results=made))
    return next(report for report in verdict.cells if report.id == "t/a:max")


def test_a_bound_on_what_is_asked_of_a_curve_needs_two_seeds() -> None:
    alone = maximum(0.0)
    assert alone.verdict == "inconclusive"
    assert alone.detail == "0: nothing says how this spreads over seeds"
    assert alone.needed == "at least 2 seeds"
    assert maximum(1.25).detail.startswith("1.25: nothing")
    assert maximum(1.0, 1.1).verdict == "reproduced"


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"kind": "absolute"}, "'tolerance.margin' is missing"),
        ({"kind": "absolute", "margin": "-1"}, "'tolerance.margin' is negative"),
        ({"kind": "absolute", "margin": "0"}, None),
        ({"kind": "relative", "margin": "0.1"}, "'tolerance.floor' is missing"),
        ({"kind": "relative", "margin": "0.1", "floor": "-0.1"}, "'tolerance.floor' is negative"),
        ({"kind": "bound", "side": "at_most"}, "'tolerance.bound' is missing"),
        ({"kind": "bound", "bound": "-1"}, "'tolerance.side' is missing"),
        ({"kind": "bound", "bound": "-1", "side": "at_most"}, None),
    ],
)
def test_numbers_that_a_kind_needs(rule: dict[str, str], problem: str | None) -> None:
    kind = Tolerance(reason="made", **rule)  # type: ignore[arg-type]
    cell = expected_cell(value="1.0", unit="loss", tolerance=kind)
    given = measured(Cell(id="t/a", unit="loss", value=1.0))
    if problem is None:
        assert judge(cell, given, None, "here").verdict in ("match", "deviates")
    else:
        with pytest.raises(InvalidInput, match=problem):
            judge(cell, given, None, "here")


def test_a_printed_share_that_a_single_count_gives_is_that_count() -> None:
    """4.8 % of 208 with and without the count beside it; items are those measured unless said."""
    rule = tolerance("flip", margin="5", flip_rate="0.05")
    made = [
        one(expected_cell(value="4.8", n=n, k=k, tolerance=rule), share("t/a", 13, 208))
        for n, k in ((208, 10), (208, None), (None, None))
    ]
    assert made[0].interval is not None
    assert made[0].interval == made[1].interval == made[2].interval


@pytest.mark.parametrize("counts", [{"k": 3}, {"n": 9}, {}])
@pytest.mark.parametrize("kind", ["binomial", "flip"])
def test_kinds_of_items_need_counts(kind: str, counts: dict[str, int]) -> None:
    rule = tolerance(kind, margin="5", **({"flip_rate": "0.1"} if kind == "flip" else {}))
    k, n = counts.get("k"), counts.get("n")
    given = Measurement("t/a", "percent", Fraction(3), k, n, (), None, ())
    made = judge(expected_cell(value="3", tolerance=rule), given, None, "here")
    assert (made.verdict, "needs fields 'k' and 'n'" in made.detail) == ("invalid", True)


@pytest.mark.parametrize("reference", [None, "p"])
@pytest.mark.parametrize("source", [None, memory(labels("p", "1100"))])
def test_paired_items_need_published_labels(reference: str | None, source: Any) -> None:
    cell = expected_cell(value="50", labels=reference, tolerance=tolerance("paired", margin="5"))
    given = measure(share("t/a", 2, 4, labels="m"), "percent", "a test",
                    memory(labels("m", "1100")))  # fmt: skip
    if reference and source:
        assert judge(cell, given, source, "here").verdict == "match"
        return
    with pytest.raises(InvalidInput, match="needs published 'labels'"):
        judge(cell, given, source, "here")
