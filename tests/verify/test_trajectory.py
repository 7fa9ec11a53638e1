"""Mean lines of trajectories: intervals against scipy and statsmodels, grids, bad input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import convert, structs
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from kit.errors import InvalidInput
from kit.results.types import Curve, LineRef, Point
from kit.verify.measurement import measure
from kit.verify.trajectory import mean_line, shared_grid
from tests.verify.builders import line_of, trajectory_cell

VALUES = st.floats(-1e3, 1e3).map(lambda value: round(value, 3))


def curves(*ys: list[float]) -> list[Curve]:
    return [
        Curve(seed=str(i), points=[Point(float(x), y) for x, y in enumerate(of)])
        for i, of in enumerate(ys)
    ]


@given(st.integers(2, 6).flatmap(lambda m: st.lists(st.lists(VALUES, min_size=m, max_size=m))))
def test_over_seeds_the_interval_is_scipys_t(columns: list[list[float]]) -> None:
    made = curves(*map(list, zip(*columns, strict=True))) if columns else []
    line = mean_line(made, "loss")
    assert [point.x for point in line] == list(range(len(columns)))
    for point, values in zip(line, columns, strict=True):
        assert point.value == pytest.approx(sum(values) / len(values), abs=1e-9)
        if len(set(values)) == 1:
            assert point.interval is None, "seeds without spread say nothing"
            continue
        low, high = stats.t.interval(
            0.95, len(values) - 1, loc=point.value, scale=stats.sem(values)
        )
        assert point.interval is not None
        assert point.interval.low == pytest.approx(low, rel=1e-9, abs=1e-9)
        assert point.interval.high == pytest.approx(high, rel=1e-9, abs=1e-9)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_single_proportion_has_statsmodels_wilson(counts: tuple[int, int]) -> None:
    k, n = counts
    made = [Curve(points=[Point(3.0, 100 * k / n, k, n)])]
    (point,) = mean_line(made, "percent")
    low, high = proportion_confint(k, n, 0.05, "wilson")
    assert point.interval is not None
    assert point.interval.low == pytest.approx(100 * low, abs=1e-9)
    assert point.interval.high == pytest.approx(100 * high, abs=1e-9)


def test_an_interval_of_a_proportion_stays_inside_it() -> None:
    made = [
        Curve(seed=str(i), points=[Point(0.0, 100 * k / 10, k, 10)])
        for i, k in enumerate((0, 0, 4))
    ]
    (point,) = mean_line(made, "percent")
    assert point.interval is not None
    assert point.interval.low == 0.0


def test_a_single_number_has_no_interval() -> None:
    assert [point.interval for point in mean_line(curves([1.0, 2.0]), "loss")] == [None, None]


def test_only_x_that_all_curves_have() -> None:
    made = [
        Curve(seed="a", points=[Point(0, 1), Point(5, 2), Point(10, 3)]),
        Curve(seed="b", points=[Point(0, 3), Point(10, 5)]),
    ]
    assert shared_grid(made) == [0, 10]
    assert [point.value for point in mean_line(made, "loss")] == [2, 4]
    assert shared_grid([]) == []


def test_thinning_keeps_both_ends() -> None:
    line = mean_line(curves([float(i) for i in range(1000)]), "loss", most=7)
    assert len(line) == 7
    assert (line[0].x, line[-1].x) == (0, 999)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([(0, 1), (0, 2)], "x does not rise"),
        ([(5, 1), (0, 2)], "x does not rise"),
        ([(float("inf"), 1)], "x does not rise"),
        ([(0, float("nan"))], "not a finite number"),
        ([(0, 0.5, 3, 4)], r"x = 0: field 'value': 0.5 fraction contradicts k/n = 3/4"),
        ([(0, 0.5, 5, 4)], "5 of 4 items is impossible"),
    ],
)
def test_impossible_points_are_refused_by_place(
    points: list[tuple[float, ...]], message: str
) -> None:
    series = [line_of("t/a", {"s1": points}, "fraction")]
    with pytest.raises(InvalidInput, match=message) as caught:
        measure(trajectory_cell("t/a", "fraction"), "percent", "results.json", None, series)
    assert "seed s1" in str(caught.value)


def test_a_line_that_is_not_there_or_of_another_unit_is_refused() -> None:
    cell, series = trajectory_cell("t/a"), [line_of("t/a", {"": [(0, 1)]})]
    for ref in (LineRef(series="t/a", line="b"), LineRef(series="t/b", line="t/a")):
        with pytest.raises(InvalidInput, match="there is no line"):
            measure(structs.replace(cell, trajectory=ref), "loss", "r", None, series)
    with pytest.raises(InvalidInput, match="'loss' cannot be compared with 'percent'"):
        measure(structs.replace(cell, unit="percent"), "percent", "r", None, series)


def test_two_curves_of_one_seed_are_refused() -> None:
    series = line_of("t/a", {"1": [(0, 1)]})
    twice = structs.replace(series, lines={"t/a": [*series.lines["t/a"]] * 2})
    with pytest.raises(InvalidInput, match="two curves of one seed"):
        measure(trajectory_cell("t/a"), "loss", "r", None, [twice])


def test_a_point_is_written_as_a_list() -> None:
    assert convert([1, 50.0], Point) == Point(1, 50.0)
    assert convert([1, 50.0, 2, 4], Point) == Point(1, 50.0, 2, 4)
    with pytest.raises(ValueError, match="length"):
        convert([1, 50.0, 2, 4, 5], Point)
