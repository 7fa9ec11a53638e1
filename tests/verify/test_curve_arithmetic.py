"""The kind ``trajectory`` by hand: intervals of points and of the mean residual, and its words."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import sqrt
from statistics import fmean, stdev
from typing import Any

import pytest
from scipy import stats

from kit.results.types import Curve, Point
from kit.verify.kinds.curve import Residual, _rounded, trajectory
from kit.verify.measurement import Measurement
from kit.verify.verdict import CellReport
from tests.verify.builders import expected_cell, one_curve, tolerance

HALF, MARGIN = Fraction(1, 20), Fraction(1, 2)
EDGE, STEP = MARGIN + HALF, Fraction(1, 1000)


def bare(size: Fraction) -> Residual:
    return Residual("x = 0", size, HALF, None, None)


@pytest.mark.parametrize("sign", [1, -1])
def test_without_a_noise_model_a_residual_counts_as_it_stands(sign: int) -> None:
    """The printed precision is added to the margin; edges belong to the inside."""
    assert bare(sign * HALF).identical
    assert not bare(sign * (HALF + STEP)).identical
    for size, inside in ((EDGE, True), (EDGE + STEP, False), (EDGE - STEP, True)):
        assert bare(sign * size).equivalent(MARGIN) is inside
        assert bare(sign * size).different(MARGIN) is not inside


@pytest.mark.parametrize(
    ("low", "high", "equal", "apart"),
    [
        (-0.5, 0.5, True, False),
        (-0.51, 0.5, False, False),
        (-0.5, 0.51, False, False),
        (0.0, 0.4, True, False),
        (-0.4, 0.0, True, False),
        (0.01, 0.4, True, True),
        (-0.4, -0.01, True, True),
        (0.6, 0.9, False, True),
    ],
)
def test_with_a_noise_model_its_intervals_decide(
    low: float, high: float, equal: bool, apart: bool
) -> None:
    """However large the residual itself."""
    made = Residual("x = 0", Fraction(100), HALF, (low, high), (low, high))
    assert made.equivalent(MARGIN) is equal
    assert made.different(MARGIN) is apart


def expected(*ys: str, margin: str = "0.5", drift: str | None = None, **fields: Any) -> Any:
    rule = tolerance("trajectory", margin=margin, drift=drift)
    series = [[str(10 * i), y] for i, y in enumerate(ys)]
    defaults: dict[str, Any] = {"value": None, "unit": "loss", "tolerance": rule, "series": series}
    return expected_cell(**(defaults | fields))


def curves(*seeds: Sequence[float]) -> dict[str, list[tuple[float, ...]]]:
    return {str(i): [(10.0 * j, y) for j, y in enumerate(ys)] for i, ys in enumerate(seeds)}


def report(cell: Any, *seeds: Sequence[float]) -> CellReport:
    return one_curve(cell, curves(*seeds), cell.unit)


@pytest.mark.parametrize(
    ("second", "drift", "verdict"),
    [
        ("2.04", "0.5", "match"),
        ("2.3", "0.5", "reproduced"),
        ("2.7", "0.5", "deviates"),
        ("2.4", "0.1", "deviates"),  # the mean residual is 0.2, with 0.15 allowed
        ("2.3", "0.1", "reproduced"),  # exactly what is allowed
        ("2.3", "0.05", "deviates"),
        ("1.7", "0.05", "deviates"),
        ("2.55", None, "reproduced"),  # half of the margin and half a digit: 0.3
    ],
)
def test_a_single_run_of_numbers_has_points_and_a_drift(
    second: str, drift: str | None, verdict: str
) -> None:
    made = report(expected("1.0", "2.0", drift=drift), [1.0, float(second)])
    assert made.verdict == verdict
    assert "no noise model" in made.detail
    assert made.interval_equivalence is None


def newcombe_percent(k: int, n: int, p0: float, level: float, half: float) -> tuple[float, float]:
    """Newcombe's method 10 from two Wilson intervals by scipy, in percent, widened."""
    here = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    z2 = stats.norm.ppf((1 + level) / 2) ** 2
    centre, root = p0 + z2 / (2 * n), sqrt(z2 * (p0 * (1 - p0) / n + z2 / (4 * n * n)))
    low, high = (centre - root) / (1 + z2 / n), (centre + root) / (1 + z2 / n)
    p = k / n
    return (
        100 * (p - p0 - sqrt((p - here.low) ** 2 + (high - p0) ** 2)) - half,
        100 * (p - p0 + sqrt((here.high - p) ** 2 + (p0 - low) ** 2)) + half,
    )


@pytest.mark.parametrize("n", [None, 200])
@pytest.mark.parametrize(
    ("k", "said", "p0", "half"),
    [(20, "12.5", 0.125, 0.05), (0, "0.0", 0.0, 0.05), (200, "100.0", 1.0, 0.05),
     (200, "101", 1.0, 0.5), (3, "-1", 0.0, 0.5)],
)  # fmt: skip
def test_a_point_of_a_single_run_has_newcombes_interval(
    k: int, said: str, p0: float, half: float, n: int | None
) -> None:
    """Of as many items on either side; a number beyond the scale stands for its end."""
    cell = expected(said, margin="50", unit="percent", n=n)
    made = one_curve(cell, {"0": [(0.0, k / 2, k, 200)]}, "percent")
    assert made.interval_equivalence is not None
    low, high = newcombe_percent(k, 200, p0, 0.90, half)
    assert made.interval_equivalence.level == 0.90
    assert made.interval_equivalence.low == pytest.approx(low)
    assert made.interval_equivalence.high == pytest.approx(high)


def just(k: int, said: str, level: float) -> bool:
    """Whether 0 is outside of the point's interval at this level."""
    low, high = newcombe_percent(k, 200, float(said) / 100, level, 0.05)
    return low > 0 or high < 0


@pytest.mark.parametrize("tenth", range(160, 180))
@pytest.mark.parametrize("points", [1, 2, 4])
def test_a_difference_is_asked_at_a_level_that_counts_points_and_drift(
    tenth: int, points: int
) -> None:
    """A single point differs; the residual on average is smaller and asks no more."""
    said = f"{tenth / 10:.1f}"
    cell = expected(said, *["17.0"] * (points - 1), margin="1", drift="1", unit="percent")
    line: list[tuple[float, ...]] = [(0.0, 25.0, 50, 200)]
    line += [(10.0 * i, 17.0, 34, 200) for i in range(1, points)]
    made = one_curve(cell, {"0": line}, "percent")
    differs = just(50, said, 1 - 0.05 / (points + 1))
    assert made.verdict == ("deviates" if differs else "inconclusive")
    assert ("shown x = 0" in made.detail) is differs


@pytest.mark.parametrize("runs", [1, 4])
@pytest.mark.parametrize("values", [[1.9, 2.0, 2.3], [1.9, 2.2], [1.0, 1.5, 0.2, 1.1]])
def test_over_seeds_a_point_has_a_prediction_interval(values: list[float], runs: int) -> None:
    made = report(expected("1.5", runs=runs), *[[v] for v in values])
    error = stdev(values) * sqrt(1 / len(values) + 1 / runs)
    reach = stats.t.ppf(0.95, len(values) - 1) * error + 0.05
    assert made.interval_equivalence is not None
    assert made.interval_equivalence.low == pytest.approx(fmean(values) - 1.5 - reach)
    assert made.interval_equivalence.high == pytest.approx(fmean(values) - 1.5 + reach)


def shares(counts: Sequence[int], n: int) -> dict[str, list[tuple[float, ...]]]:
    return {str(i): [(0.0, 100 * k / n, k, n)] for i, k in enumerate(counts)}


def test_item_sampling_stands_in_where_seeds_do_not_spread_and_only_there() -> None:
    cell = expected("1.0", margin="50", unit="percent")
    still = one_curve(cell, shares([2, 2, 2], 50), "percent").interval_equivalence
    apart = one_curve(cell, shares([1, 2, 3], 50), "percent").interval_equivalence
    assert still is not None
    assert apart is not None
    q = (2 + 2) / 54
    factor = stats.t.ppf(0.95, 2) * sqrt(1 / 3 + 1)
    assert (still.high - still.low) / 2 - 0.05 == pytest.approx(
        100 * sqrt(q * (1 - q) / 50) * factor
    )
    assert (apart.high - apart.low) / 2 - 0.05 == pytest.approx(2.0 * factor)


def test_numbers_that_do_not_spread_have_no_noise_model() -> None:
    made = report(expected("1.0"), [1.3], [1.3], [1.3])
    assert made.interval_equivalence is None
    assert made.verdict == "reproduced"
    assert "no noise model" in made.detail


@pytest.mark.parametrize("drift", ["0.04", "0.3"])
def test_the_mean_residual_spreads_as_the_means_of_the_seeds_do(drift: str) -> None:
    """Two seeds that part at each point and agree on average: there they do not spread."""
    cell = expected("1.0", "2.0", margin="9", drift=drift)
    made = report(cell, [1.5, 1.7], [0.9, 2.3])
    assert made.verdict == ("reproduced" if drift == "0.3" else "deviates")


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("share", [0.99, 1.01])
def test_the_drift_of_seeds_is_a_t_interval_of_their_means(share: float, runs: int) -> None:
    seeds = [[1.30, 2.05], [1.20, 2.17], [1.37, 2.10], [1.25, 2.02]]
    means = [fmean(ys) - 1.5 for ys in seeds]
    reach = stats.t.ppf(0.95, 3) * stdev(means) * sqrt(1 / 4 + 1 / runs) + 0.05
    drift = share * (fmean(means) + reach)
    made = report(expected("1.0", "2.0", margin="9", drift=f"{drift:.6f}", runs=runs), *seeds)
    assert made.verdict == ("reproduced" if share > 1 else "inconclusive")
    assert ("open on average" in made.detail) == (share < 1)


@pytest.mark.parametrize("share", [0.99, 1.01])
def test_the_drift_of_a_single_run_has_the_mean_of_the_intervals(share: float) -> None:
    counts, said = [20, 60, 90], ["9", "28", "43"]
    ends = [newcombe_percent(k, 200, float(y) / 100, 0.90, 0.5)
            for k, y in zip(counts, said, strict=True)]  # fmt: skip
    drift = share * max(fmean(high for _, high in ends), -fmean(low for low, _ in ends))
    cell = expected(*said, margin="40", drift=f"{drift:.6f}", unit="percent")
    line = {"0": [(10.0 * i, k / 2, k, 200) for i, k in enumerate(counts)]}
    made = one_curve(cell, line, "percent")
    assert made.verdict == ("reproduced" if share > 1 else "inconclusive")


def test_what_is_open_is_named_up_to_three() -> None:
    values = [[1.0] * 5, [1.4] * 5, [0.9] * 5]
    four = report(expected(*["1.0"] * 5, margin="0.01"), *values)
    assert four.verdict == "inconclusive"
    assert four.detail.endswith("; open x = 0, x = 10, x = 20, ...")
    assert four.needed == "more seeds, or more items"
    three = report(expected(*["1.0"] * 3, margin="9", drift="9"), *values)
    assert "open" not in three.detail
    assert three.needed is None
    some = [[1.0, 1.3], [1.0, 1.5], [1.0, 1.2]]
    last = report(expected("1.0", "1.0", margin="0.3", drift="9"), *some)
    assert last.detail.endswith("; open x = 10")


def test_equal_within_the_margin_and_yet_shifted() -> None:
    values = [[1.20], [1.21], [1.19]]
    made = report(expected("1.00"), *values)
    assert (made.verdict, made.shifted) == ("reproduced", True)
    assert made.detail.endswith("; equal within the margin, yet shifted")
    assert "shown" not in made.detail
    apart = report(expected("1.00", margin="0.1"), *values)
    assert (apart.verdict, apart.shifted) == ("deviates", False)
    assert apart.detail.endswith("; shown x = 0")
    same = report(expected("1.20"), *values)
    assert (same.verdict, same.shifted) == ("match", False)


def test_the_largest_residual_is_that_furthest_beyond_its_printed_precision() -> None:
    made = report(expected("1", "2.00", "3.00", margin="9"), [1.5, 1.8, 3.1])
    assert made.difference == pytest.approx(-0.2)
    assert made.margin == 9.0
    assert "largest residual -0.2 at x = 10 (margin 9)" in made.detail
    assert "mean residual +0.1333 (drift allowed 4.5)" in made.detail


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.1, 0.34, "+0.46"),  # half of the width 0.12
        (3.0, 3.12, "+0.457"),  # 0.06
        (-0.12, 0.12, "+0.46"),
        (-9.0, -8.0, "+0.46"),  # 0.5
        (5.0, 8.0, "+0.5"),  # 1.5
    ],
)
def test_digits_are_those_that_half_of_the_interval_supports(
    low: float, high: float, text: str
) -> None:
    cell = Measurement("t/a", "loss", None, None, None, (), None, ())
    made = Residual("x = 0", Fraction(1), HALF, (-100.0, 100.0), (low, high))
    assert _rounded(made, 0.45678, cell) == text
    assert _rounded(Residual("x = 0", Fraction(1), HALF, None, None), 0.45678, cell) == "+0.4568"


@pytest.mark.parametrize(
    ("n", "said"), [(None, ""), (50, ""), (51, "field 'n' at x = 10 is 50"), (200, "at x = 10")]
)
def test_points_rest_on_as_many_items_as_the_published_curve(n: int | None, said: str) -> None:
    """Points that are not published, or say no n, are not asked."""
    cell = expected("10", "10", unit="percent", n=n)
    line = [(0.0, 10.0), (5.0, 10.0, 3, 30), (10.0, 10.0, 5, 50)]
    made = one_curve(cell, {"0": line}, "percent")
    assert (made.verdict == "invalid") == bool(said)
    assert said in made.detail


def test_without_points_nothing_is_compared() -> None:
    cell = Measurement("t/a", "loss", None, None, None, (), None,
                       (Curve(seed="0", points=[Point(0.0, 1.0)]),))  # fmt: skip
    made = trajectory(cell, expected(), Fraction(1), None)
    assert (made.verdict, "no points" in made.detail) == ("invalid", True)


def test_a_point_that_a_curve_lacks_is_named() -> None:
    made = report(expected("1.0", "2.0", "3.0"), [1.0, 2.0, 3.0], [1.0])
    assert made.verdict == "invalid"
    assert "no point at x = 10 in every curve" in made.detail
