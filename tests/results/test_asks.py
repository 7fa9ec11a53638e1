"""What is asked of trajectories, against brute force and numpy."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.results.asks import Ask, area, of_single_curve, split, with_answers
from kit.results.axes import Origin
from kit.results.builder import TableBuilder
from kit.results.curves import Line
from kit.results.ids import CellId
from kit.results.types import Cell, Curve, LineRef, Point, Results, Series

XS = st.lists(st.integers(-50, 1000), min_size=2, max_size=12, unique=True).map(sorted)
VALUES = st.floats(-100, 100).map(lambda value: round(value, 2))
CURVES = XS.flatmap(
    lambda xs: st.tuples(st.just(xs), st.lists(VALUES, min_size=len(xs), max_size=len(xs)))
)


def results(unit: str, *curves: list[Point], cell: Cell | None = None) -> Results:
    made = [Curve(seed=f"s{i}", points=points) for i, points in enumerate(curves)]
    series = Series(
        id="forget/a", title="", x_label="step", y_label="", unit=unit, lines={"adamw": made}
    )
    if cell is None:
        cell = Cell(
            id="a/forget/adamw", unit=unit, trajectory=LineRef(series="forget/a", line="adamw")
        )
    return Results(
        schema_version=1, experiment="e", version="1-A", profile="mini", cells=[cell],
        series=[series],
    )  # fmt: skip


def answer(table: Results, question: str) -> Cell:
    id = f"a/forget/adamw:{question}"
    cells, unanswered = with_answers(table, [id])
    assert unanswered == {}
    return cells[id]


@given(CURVES, st.integers(-100, 100))
def test_answers_of_a_curve_by_brute_force(made: tuple[list[int], list[float]], level: int) -> None:
    xs, ys = made
    table = results("loss", [Point(float(x), y) for x, y in zip(xs, ys, strict=True)])
    assert answer(table, "end").value == ys[-1]
    assert answer(table, "max").value == np.max(ys)
    assert answer(table, "min").value == np.min(ys)
    assert answer(table, "area").value == pytest.approx(np.trapezoid(ys, xs), abs=1e-6)
    for word, past in (("above", np.array(ys) > level), ("below", np.array(ys) < level)):
        cell = answer(table, f"first-{word}:{level}")
        (seed,) = cell.seeds
        if past.any():
            assert (cell.value, seed.value, seed.beyond) == (xs[past.argmax()], cell.value, False)
        else:
            assert (cell.value, seed.value, seed.beyond) == (None, xs[-1], True)


def test_units_of_the_answers() -> None:
    table = results("percent", [Point(0, 25.0, 5, 20), Point(10, 50.0, 10, 20)])
    units = {
        question: answer(table, question).unit
        for question in ("end", "max", "min", "area", "first-above:25")
    }
    assert units == {
        "end": "percent", "max": "percent", "min": "percent", "area": "number",
        "first-above:25": "count",
    }  # fmt: skip


def test_a_crossing_is_strict_and_counts_items_exactly() -> None:
    third = [Point(0, 100 * 1 / 3, 1, 3), Point(5, 100 * 2 / 3, 2, 3)]
    table = results("percent", third)
    assert answer(table, "first-above:33.3").value == 0
    assert answer(table, "first-above:33.4").value == 5
    half = results("fraction", [Point(0, 0.07, 7, 100), Point(5, 0.08, 8, 100)])
    assert answer(half, "first-above:0.07").value == 5
    assert answer(half, "first-below:0.08").value == 0
    assert answer(half, "first-below:0.07").seeds[0].beyond


def test_counts_of_an_end_stay_and_those_of_a_single_maximum_go() -> None:
    points = [Point(0, 50.0, 10, 20), Point(5, 25.0, 5, 20)]
    alone, twice = results("percent", points), results("percent", points, points)
    assert [(seed.k, seed.n) for seed in answer(alone, "end").seeds] == [(5, 20)]
    assert [(seed.k, seed.n) for seed in answer(alone, "max").seeds] == [(None, None)]
    assert [(seed.k, seed.n) for seed in answer(twice, "max").seeds] == [(10, 20), (10, 20)]


def test_every_seed_answers_for_itself() -> None:
    table = results(
        "loss", [Point(0, 1), Point(10, 3), Point(20, 2)], [Point(0, 2), Point(10, 2), Point(20, 1)]
    )
    top = answer(table, "max")
    assert [(seed.seed, seed.value) for seed in top.seeds] == [("s0", 3), ("s1", 2)]
    assert top.value == 2.5
    crossed = answer(table, "first-above:2")
    assert [(seed.value, seed.beyond) for seed in crossed.seeds] == [(10, False), (20, True)]
    assert crossed.value is None


def test_curves_that_reach_over_different_x_only_tell_crossings() -> None:
    table = results("loss", [Point(0, 1), Point(10, 3)], [Point(0, 2), Point(20, 1)])
    for question in ("end", "max", "min", "area"):
        _, unanswered = with_answers(table, [f"a/forget/adamw:{question}"])
        assert "reach over different x (0 to 10 and 0 to 20)" in next(iter(unanswered.values()))
    assert [seed.value for seed in answer(table, "first-above:2").seeds] == [10, 20]


def test_what_cannot_be_answered_says_why() -> None:
    number = results("loss", [], cell=Cell(id="a/forget/adamw", unit="loss", value=1.0))
    empty = results("loss", [])
    lost = LineRef(series="forget/a", line="sgd")
    wrong = results("loss", cell=Cell(id="a/forget/adamw", unit="loss", trajectory=lost))
    single = results("loss", [Point(0, 1)])
    for table, question, message in (
        (number, "max", "is a single number, no trajectory"),
        (empty, "max", "has a curve without points"),
        (wrong, "max", "there is no line 'sgd'"),
        (single, "area", "an area needs two points"),
    ):
        id = f"a/forget/adamw:{question}"
        cells, unanswered = with_answers(table, [id])
        assert id not in cells
        assert message in unanswered[id]


def test_what_was_not_run_is_not_asked() -> None:
    table = results("loss", cell=Cell(id="a/forget/adamw", unit="loss", not_run="no GPU"))
    assert answer(table, "max").not_run == "no GPU"
    cells, unanswered = with_answers(table, ["a/other:max", "a/other"])
    assert (list(cells), unanswered) == (["a/forget/adamw"], {})


def test_a_table_that_has_the_answer_keeps_it() -> None:
    table = results("loss", cell=Cell(id="a/forget/adamw:max", unit="loss", value=4.0))
    assert answer(table, "max").value == 4.0


def test_questions_are_read_exactly() -> None:
    assert split("a/b/c") == ("a/b/c", None)
    assert split("a/b/c@0.1:max") == ("a/b/c@0.1", Ask("max"))
    assert split("a/b/c:first-above:0.5")[1] == Ask("first-above", Fraction(1, 2))
    for text in (
        "a:",
        "a:mean",
        "a:first-above",
        "a:first-above:x",
        "a:max:1",
        "a:first-above:1/2",
    ):
        with pytest.raises(ValueError, match="can be asked"):
            split(text)
    assert [of_single_curve(f"a{question}") for question in ("", ":end", ":max", ":area")] == [
        False, False, True, True,
    ]  # fmt: skip


def test_the_area_of_one_point_is_refused() -> None:
    with pytest.raises(ValueError, match="two points"):
        area([Point(0, 1)])


FORGET = Line("forget", "forget accuracy", "attack step", "accuracy", "percent", "adamw")


def test_the_builder_makes_a_cell_that_can_be_asked() -> None:
    builder = TableBuilder()
    for seed, hits in (("0", (5, 20)), ("1", (5, 15))):
        points = [(10 * i, 100 * k / 20, k, 20) for i, k in enumerate(hits)]
        builder.at(Origin("tar", seed, ("r8",), "attack")).trajectory(FORGET, points)
    table = builder.build()
    (cell,) = table.cells
    assert (cell.id, cell.unit, cell.step) == ("tar/forget/adamw@r8", "percent", "attack")
    full = Results(
        schema_version=1, experiment="e", version="1-A", profile="mini", cells=table.cells,
        series=table.series,
    )  # fmt: skip
    cells, _ = with_answers(full, ["tar/forget/adamw@r8:max"])
    assert [seed.value for seed in cells["tar/forget/adamw@r8:max"].seeds] == [100, 75]


def test_a_cell_is_a_number_or_a_curve_and_not_both() -> None:
    builder = TableBuilder()
    here = builder.at(Origin("tar", "0"))
    here.trajectory(FORGET, [(0, 1.0)])
    here.number("forget", "adamw", 1.0, "percent")
    with pytest.raises(ValueError, match="tar/forget/adamw is a number and a curve"):
        builder.build()
    declared = TableBuilder()
    declared.at(Origin("tar", "0")).trajectory(FORGET, [(0, 1.0)])
    declared.not_run(CellId("tar", "forget", "adamw"), "percent", "why")
    with pytest.raises(ValueError, match="declared as not run"):
        declared.build()
