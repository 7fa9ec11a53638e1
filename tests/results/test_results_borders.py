"""Tables and curves at their borders: counts of none and all, empty curves, ids that are none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from kit.results import run
from kit.results.asks import area, split, with_answers
from kit.results.axes import Origin
from kit.results.builder import TableBuilder
from kit.results.curves import Line, by_checkpoint, checkpoint_id
from kit.results.ids import CellId
from kit.results.types import Cell, Curve, LineRef, Point, Results, SeedValue, Series
from tests.refused import refused
from tests.results.test_asks import answer, results


@pytest.mark.parametrize("empty", [(0,), (1,), (0, 1)])
def test_a_single_curve_without_points_is_enough_to_say_so(empty: tuple[int, ...]) -> None:
    curves = [[] if at in empty else [Point(0, 1.0), Point(1, 2.0)] for at in range(2)]
    for question in ("max", "end", "first-above:0"):
        _, unanswered = with_answers(results("loss", *curves), [f"a/forget/adamw:{question}"])
        assert "a curve without points" in next(iter(unanswered.values()))


def test_two_of_several_reaches_are_shown() -> None:
    curves = [[Point(0, 1.0), Point(end, 2.0)] for end in (30, 10, 20)]
    _, unanswered = with_answers(results("loss", *curves), ["a/forget/adamw:max"])
    (said,) = unanswered.values()
    assert said.endswith("(0 to 10 and 0 to 20)")
    begins = [[Point(0, 1.0), Point(9, 2.0)], [Point(1, 1.0), Point(9, 2.0)]]
    _, unanswered = with_answers(results("loss", *begins), ["a/forget/adamw:max"])
    assert "(0 to 9 and 1 to 9)" in next(iter(unanswered.values()))


@pytest.mark.parametrize(
    ("unit", "point", "level", "above"),
    [
        # A count is a third exactly; the value that is printed beside it is a little less or more.
        ("percent", Point(0, 33.4, 1, 3), "33.35", False),
        ("percent", Point(0, 33.3, 1, 3), "33.32", True),
        ("fraction", Point(0, 0.34, 1, 3), "0.335", False),
        # Without a whole count, or in a unit that is no share, the value stands.
        ("percent", Point(0, 33.4, None, 3), "33.35", True),
        ("percent", Point(0, 33.4, 1, None), "33.35", True),
        ("loss", Point(0, 33.4, 1, 3), "33.35", True),
    ],
)
def test_a_crossing_by_its_count_or_its_value(
    unit: str, point: Point, level: str, above: bool
) -> None:
    (seed,) = answer(results(unit, [point]), f"first-above:{level}").seeds
    assert seed.beyond is not above
    (seed,) = answer(results(unit, [point]), f"first-below:{level}").seeds
    assert seed.beyond is above


def test_counts_of_an_end_and_of_a_maximum_are_those_of_its_point() -> None:
    points = [Point(0, 10.0, 1, 10), Point(1, 75.0, 15, 20), Point(2, 40.0, 12, 30)]
    table = results("percent", points, points)
    for question, counts in (("end", (12, 30)), ("max", (15, 20)), ("min", (1, 10))):
        assert {(seed.k, seed.n) for seed in answer(table, question).seeds} == {counts}


def test_areas_by_hand() -> None:
    assert area([Point(0, 1.0), Point(2, 3.0)]) == 4.0
    assert area([Point(1, 2.0), Point(3, 4.0), Point(4, 0.0)]) == 8.0
    refused(lambda: area([Point(0, 1.0)]), True, "two points")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("a:first-above:-0.5", False), ("a:first-above:+3", False), ("a:first-above:3.", True),
     ("a:first-above:" + "9" * 40, False), ("a:first-above:" + "9" * 41, True),
     ("a:maximum", True), ("a:end", False)],
)  # fmt: skip
def test_what_can_be_asked(text: str, wrong: bool) -> None:
    refused(lambda: split(text), wrong, "can be asked")


@pytest.mark.parametrize(
    ("id", "line", "x", "cell"),
    [
        ("asr/near", "adapt @ 0.01", 5.0, "near/asr/adapt-5@0.01"),
        ("asr/near", "adapt", 0.0, "near/asr/adapt-0"),
        ("asr/near", "adapt", 5.5, None),
        ("asr/near", "adapt", -1.0, None),
        ("asr", "adapt", 5.0, None),
    ],
)
def test_the_cell_behind_a_point(id: str, line: str, x: float, cell: str | None) -> None:
    series = Series(id=id, title="", x_label="", y_label="", unit="percent", lines={})
    assert checkpoint_id(series, line, x) == cell


def test_rows_without_a_name_or_a_step_are_no_checkpoints() -> None:
    cells = [Cell(id=f"near/asr/{row}", unit="percent", value=1.0, k=1, n=100)
             for row in ("-5", "adapt-", "adapt5", "adapt-x", "adapt-05")]  # fmt: skip
    (series,) = by_checkpoint(cells, "asr", x_label="epoch")
    assert series.lines == {"adapt": [Curve(points=[Point(5.0, 1.0, 1, 100)])]}
    assert (series.x_label, series.y_label, series.title) == ("epoch", "asr", "asr by epoch, near")


LINE = Line("loss", "training loss", "step", "loss", "nats", "lora")


@pytest.mark.parametrize(
    ("xs", "wrong"), [((0, 1, 2), False), ((2, 0, 1), False), ((0, 1, 0), True), ((1, 1), True)]
)
def test_points_of_a_curve_stand_in_order_at_different_x(xs: tuple[int, ...], wrong: bool) -> None:
    table = TableBuilder()
    refused(lambda: table.at(Origin("all", "0")).curve(LINE, [(x, x) for x in xs]), wrong, "two")
    if not wrong:
        (series,) = table.build().series
        (curve,) = series.lines["lora"]
        assert [point.x for point in curve.points] == sorted(xs)


@pytest.mark.parametrize(
    ("k", "n", "wrong"), [(0, 1, False), (1, 1, False), (2, 1, True), (-1, 1, True), (0, 0, True)]
)
def test_counts_of_a_proportion(k: int, n: int, wrong: bool) -> None:
    table = TableBuilder()
    refused(lambda: table.at(Origin("all", "")).count("asr", "a", k, n), wrong, "no proportion")
    if not wrong:
        (cell,) = table.build().cells
        assert (cell.value, cell.k, cell.n, cell.seeds) == (100.0 * k, k, n, [])


def test_a_fraction_and_a_percentage_of_the_same_items() -> None:
    table = TableBuilder()
    for seed, labels in (("0", [1, 0, 0, 1]), ("1", [1, 1, 0, 1])):
        here = table.at(Origin("all", seed, step=f"step-{seed}"))
        here.proportion("asr", "a", labels)
        here.proportion("asr", "b", labels, unit="fraction")
        here.count("asr", "c", sum(labels), 4 + int(seed))
        assert (here.has("asr", "a"), here.has("asr", "z")) == (True, False)
        assert here.value("asr", "b") == sum(labels) / 4
    whole, share, uneven = table.build().cells
    assert (whole.value, share.value, uneven.value) == (62.5, 0.625, 55.0)
    assert (whole.n, uneven.n, whole.step) == (4, None, "step-0")
    assert [seed.labels for seed in whole.seeds] == [
        "labels.jsonl#all/asr/a#0", "labels.jsonl#all/asr/a#1"
    ]  # fmt: skip
    assert [seed.labels for seed in uneven.seeds] == [None, None]


def test_the_newest_run_of_an_experiment_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run.meant(Path("demo")).startswith("kit run EXP")
    for age, name in ((30, "demo-a"), (10, "demo-b"), (20, "demo-c"), (5, "other-d")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        os.utime(tmp_path / "runs" / name, (1e9 - age, 1e9 - age))
    (tmp_path / "runs" / "demo-file").touch()
    assert run.meant(Path("demo")) == "did you mean its newest run, runs/demo-b?"


def test_an_answer_is_the_mean_of_its_seeds_to_the_last_digit() -> None:
    """Decimals are added as they are printed."""
    curves = [[Point(0, value), Point(1, value)] for value in (0.1, 0.2, 0.3)]
    cell = answer(results("loss", *curves), "max")
    assert cell.value == 0.2
    assert cell.seeds == [SeedValue(seed=f"s{at}", value=v) for at, v in enumerate((0.1, 0.2, 0.3))]


def test_a_line_is_found_by_series_and_name() -> None:
    def series(id: str, *lines: str) -> Series:
        made: Any = {name: [Curve(points=[Point(0, 1.0)])] for name in lines}
        return Series(id=id, title="", x_label="", y_label="", unit=id, lines=made)

    ref = LineRef(series="b", line="y")
    table = Results(
        schema_version=1, experiment="e", version="1-A", profile="mini",
        cells=[Cell(id="a/m/y", unit="b", trajectory=ref)],
        series=[series("a", "y"), series("b", "x"), series("b", "x", "y")],
    )  # fmt: skip
    cells, _ = with_answers(table, ["a/m/y:end"])
    assert cells["a/m/y:end"].unit == "b"


def test_a_setting_that_is_no_name_is_counted_from_one() -> None:
    with pytest.raises(ValueError, match="the setting 2 of a cell id is 'b c'"):
        CellId("all", "asr", "x", ("a", "b c", "d"))
