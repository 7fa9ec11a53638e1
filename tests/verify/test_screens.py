"""The self-test's shifts, what it tests at all, and its lines, from made-up counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from kit.manifest.expectation_types import ExpectedCell
from kit.results.types import Cell
from kit.verify.core import Subject
from kit.verify.measurement import measure
from kit.verify.selftest import (
    NOTHING,
    PlantReport,
    SelfTest,
    _errors,
    _step,
    lines,
    screen,
    selftest,
)
from kit.verify.tampered import Outcome
from tests.verify.builders import (
    expectation,
    expected_cell,
    line_of,
    reference,
    seeded,
    share,
    table,
    tolerance,
    trajectory_cell,
)


@pytest.mark.parametrize(
    ("kind", "margin", "unit", "value", "step"),
    [
        ("binomial", "5", "percent", "4.8", 5.0),
        ("binomial", "5", "percent", "90", 5.0),
        ("binomial", "5", "percent", "90.5", -5.0),
        ("binomial", "0.05", "fraction", "0.9", 0.05),
        ("binomial", "0.05", "fraction", "0.95", -0.05),
        ("seeds", "5", "loss", "500", 5.0),
        ("absolute", "5", "percent", "85", 7.5),
        ("absolute", "5", "percent", "85.5", -7.5),
        ("exact", None, "percent", "50", 5.0),
        ("exact", None, "percent", "0", 0.1),
        ("exact", None, "percent", None, 0.1),
        ("exact", None, "loss", "-3", 0.3),
        ("seeds", "0", "loss", "20", 2.0),
        ("relative", "0.1", "loss", "20", 3.0),
        ("relative", "0.1", "loss", None, 0.15),
        ("relative", "0.1", "loss", "0", 0.15),
        ("relative", None, "loss", "20", 3.0),
        ("relative", "0.1", "percent", "90", -13.5),
    ],
)
def test_a_shift_is_as_large_as_the_margin_and_goes_where_there_is_room(
    kind: str, margin: str | None, unit: str, value: str | None, step: float
) -> None:
    """Twice it has to stay on the scale; without a margin a tenth of the number, or of 1."""
    rule = tolerance(kind, margin=margin)
    expected = expected_cell(value=value, unit=unit, tolerance=rule)
    cell = measure(Cell(id="t/a", unit=unit, value=1.0), unit, "r", None)
    assert _step(expected, cell) == pytest.approx(step)


@pytest.mark.parametrize(
    ("bound", "side", "unit", "step"),
    [
        ("-60", "at_most", "loss", 3.0),
        ("-60", "at_least", "loss", -3.0),
        ("0", "at_least", "loss", -0.05),
        ("0.2", "at_most", "fraction", 0.05),
        ("90", "at_least", "percent", -5.0),
    ],
)
def test_a_bound_is_crossed_by_a_twentieth(bound: str, side: str, unit: str, step: float) -> None:
    """Of the scale, else of the bound, of whichever sign, and of no less than 1."""
    rule = tolerance("bound", bound=bound, side=side)
    cell = measure(Cell(id="t/a", unit=unit, value=0.5), unit, "r", None)
    assert _step(expected_cell(value=None, unit=unit, tolerance=rule), cell) == pytest.approx(step)


UNTESTED: list[tuple[ExpectedCell, list[Cell]]] = [
    (expected_cell("t/a"), []),
    (expected_cell("t/a"), [Cell(id="t/a", unit="percent", not_run="no time", value=5.0)]),
    (expected_cell("t/a", tolerance=None), [share("t/a", 9, 208)]),
    (expected_cell("t/a"), [Cell(id="t/a", unit="percent")]),
    (
        expected_cell("t/a", tolerance=tolerance("trajectory", margin="1")),
        [trajectory_cell("t/a", "percent")],
    ),
]


@pytest.mark.parametrize(("expected", "cells"), UNTESTED)
def test_what_cannot_be_compared_is_not_tested(expected: ExpectedCell, cells: list[Cell]) -> None:
    series = [line_of("t/a", {"0": [(0.0, 1.0), (1.0, 2.0)]}, "percent")]
    made = Subject(expected=expectation([expected]), results=table(cells, series=series))
    outcome = selftest(made, trials=1)
    assert (outcome.untested, outcome.reports) == (["t/a"], [])


def plants(expected: ExpectedCell, cell: Cell, trials: int = 30) -> dict[str, PlantReport]:
    made = Subject(expected=expectation([expected]), results=table([cell]))
    return {report.plant: report for report in selftest(made, trials=trials).reports}


def test_what_is_asked_of_a_curve_is_shifted_like_a_number() -> None:
    expected = expected_cell(
        "t/a:end", "2.00", unit="loss", tolerance=tolerance("absolute", margin="1")
    )
    series = [line_of("t/a", {"0": [(0.0, 1.0), (1.0, 2.0)]})]
    made = Subject(
        expected=expectation([expected]), results=table([trajectory_cell("t/a")], series=series)
    )
    found = {r.plant: (r.found, r.size, r.trials) for r in selftest(made, trials=30).reports}
    assert found == {"none": (0, 0.0, 1), "shift +1.5": (1, 1.5, 1), "shift +3": (1, 3.0, 1)}


def test_refused_tables_are_noticed_and_a_swap_that_nothing_shows_is_not() -> None:
    """One item fewer and another unit contradict what stands beside them."""
    found = plants(expected_cell("t/a", "4.8", n=208), share("t/a", 10, 208))
    assert {name: report.found for name, report in found.items() if not report.theory} == {
        "wrong n": 1, "percent as fraction": 1, "flipped labels": 1
    }  # fmt: skip
    assert found[NOTHING].trials == 30
    assert found["shift +5 points"].size == 5.0
    assert found["shift +10 points"].size == 10.0
    assert found["shift +10 points"].rate == pytest.approx(found["shift +10 points"].found / 30)
    half = plants(expected_cell("t/a", "50", n=208), share("t/a", 104, 208))
    assert half["flipped labels"].found == 0
    down = plants(expected_cell("t/a", "98", n=208), share("t/a", 204, 208))
    assert down["shift -5 points"].size == 5.0


def test_a_plain_number_is_shifted_once() -> None:
    rule = tolerance("absolute", margin="0.2")
    found = plants(
        expected_cell("t/a", "1.9", unit="loss", tolerance=rule),
        Cell(id="t/a", unit="loss", value=1.95),
    )
    assert {name: (r.found, r.trials, r.theory) for name, r in found.items()} == {
        "none": (0, 1, None), "shift +0.3": (1, 1, None), "shift +0.6": (1, 1, None)
    }  # fmt: skip


def test_the_same_seed_gives_the_same_rates_and_another_others() -> None:
    rule = tolerance("seeds", margin="5")
    cell = expected_cell("t/s", None, reference=reference(["49", "51", "50.4"]), tolerance=rule)
    made = Subject(expected=expectation([cell]), results=table([seeded("t/s", [50.0, 50.8, 49.5])]))
    first, again, other = (selftest(made, 60, seed=seed).reports for seed in (0, 0, 1))
    assert first == again == selftest(made, 60).reports
    assert first != other


# From counts to lines.


def report(cell: str, plant: str, found: int, size: float = 0.0, **fields: Any) -> PlantReport:
    defaults: dict[str, Any] = {"kind": "seeds", "unit": "percent", "trials": 100}
    return PlantReport(cell=cell, plant=plant, size=size, found=found, **defaults | fields)


def errors(
    *cells: tuple[str, float, int, int], unit: str = "percent"
) -> dict[str, list[PlantReport]]:
    """Of each cell: the size of an error, how often of 100 it showed, and how often twice it."""
    return {
        id: [report(id, "s", few, size, unit=unit), report(id, "s", many, 2 * size, unit=unit)]
        for id, size, few, many in cells
    }


def rows(made: dict[str, list[PlantReport]], most: int) -> list[list[str]]:
    head, *said = _errors(made, most)
    assert head.split()[:2] == ["metric", "cells"]
    return [line.split() for line in said]


def test_a_metric_counts_cells_in_which_its_error_and_twice_it_show() -> None:
    made = errors(
        ("g/asr/a", 5.0, 80, 100), ("h/asr/b", 5.0, 79, 80), ("g/asr/c", 5.0, 0, 79),
        ("loss", 2.0, 0, 0), ("g/acc", 7.0, 0, 90), ("h/acc", 3.0, 0, 90), ("i/acc", 5.0, 0, 90)
    )  # fmt: skip
    assert rows(made, 3) == [
        ["asr", "3", "5", "points", "1", "2", "1"],
        ["loss", "1", "2", "points", "0", "0", "1"],
        ["acc", "3", "3", "to", "7", "points", "0", "3", "0"],
    ]


def test_a_unit_of_its_own_is_a_metric_of_its_own() -> None:
    made = errors(("g/m/a", 5.0, 0, 100)) | errors(("g/m/b", 5.0, 100, 100), unit="loss")
    assert rows(made, 2) == [["m", "1", "5", "points", "0", "1", "0"],
                             ["m", "1", "5", "1", "1", "0"]]  # fmt: skip


@pytest.mark.parametrize(
    ("most", "said"),
    [
        (4, ["a 1", "b 3", "c 2", "d 1"]),
        (3, ["b 3", "c 2", "others 2"]),
        (2, ["b 3", "others 4"]),
    ],
)
def test_the_rarest_metrics_are_put_together_where_there_is_no_room(
    most: int, said: list[str]
) -> None:
    names = ["a", "b", "b", "b", "c", "c", "d"]
    made = errors(*((f"g/{name}/{i}", 1.0, 0, 0) for i, name in enumerate(names)))
    found = rows(made, most)
    assert [" ".join(row[:2]) for row in found] == said
    if most < 4:
        assert found[-1][2:5] == ["of", "all", "sizes"]


@pytest.mark.parametrize("sizes", [(8.0, 3.0), (16.0, 3.0, 9.0), (9.0, 8.0, 3.0)])
def test_the_sizes_of_a_metric_are_said_from_the_smallest_to_the_largest(
    sizes: tuple[float, ...],
) -> None:
    made = errors(*((f"g/m/{i}", size, 0, 0) for i, size in enumerate(sizes)))
    assert rows(made, 2)[0][2:6] == ["3", "to", f"{max(sizes):g}", "points"]


def screened(reports: Sequence[PlantReport], **fields: Any) -> list[str]:
    defaults: dict[str, Any] = {"experiment": "e", "profile": "p", "trials": 100, "untested": []}
    return screen(SelfTest(reports=list(reports), **defaults | fields))


def test_copies_that_are_caught_are_counted() -> None:
    words = {"a": True, "b": True, "c": False, "d": None}
    made = [Outcome(name=name, caught=word, says="-") for name, word in words.items()]
    said = screened([], tampered=made)
    assert said[0] == "no cell can be redrawn"
    assert said[1:3] == ["Copies of the run that say what is not so: 2 of 3 caught; NOT CAUGHT: c",
                         "--all has a line a cell, --json everything"]  # fmt: skip
    said = screened([], tampered=made[:2])
    assert said[1] == "Copies of the run that say what is not so: 2 of 2 caught"
    assert screened([]) == ["no cell can be redrawn", "--all has a line a cell, --json everything"]


def test_a_screen_that_has_no_more_to_say_than_it_is_asked() -> None:
    said = screened(
        [report("g/m/a", NOTHING, 3), *errors(("g/m/a", 5.0, 80, 100))["g/m/a"],
         report("g/m/a", "wrong n", 1, trials=1), report("g/m/b", "wrong n", 0, trials=1)],
    )  # fmt: skip
    assert said[0] == "1 cell, redrawn 100 times at the published truth and beside it:"
    assert said[3:] == [
        "False alarms: 3 of 100 redraws (3.0 %)",
        "  wrong n: caught in 1 of 2 cells, cannot be seen in 1",
        "--all has a line a cell, --json everything",
    ]


@pytest.mark.parametrize(("metrics", "others"), [(21, False), (22, True)])
def test_a_screen_is_filled_before_metrics_are_put_together(metrics: int, others: bool) -> None:
    """24 lines: the head, the columns, the last line, and the metrics between."""
    made = errors(*((f"g/m{i}/a", 5.0, 100, 100) for i in range(metrics)))
    said = screened([report for reports in made.values() for report in reports])
    assert len(said) == 24
    assert any(line.startswith("others") for line in said) == others


def test_names_are_not_broken_at_their_hyphens() -> None:
    names = [f"way-{i}-of-removing-something" for i in range(4)]
    made = [Outcome(name=name, caught=False, says="-") for name in names]
    said = screened([], tampered=made)
    assert all(any(name in line for line in said) for name in names)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (report("t/a", NOTHING, 1, trials=1), "FALSE ALARM"),
        (report("t/a", NOTHING, 0, trials=1), "no false alarm"),
        (report("t/a", "wrong n", 1, trials=1), "wrong n caught"),
        (report("t/a", "wrong n", 0, trials=1), "wrong n cannot be seen here"),
        (report("t/a", "shift", 1, 5.0, trials=1, theory=0.25), "shift 100.0 % (theory 25.0 %)"),
        (report("t/a", NOTHING, 3, theory=0.05), "false alarms 3.0 % (theory 5.0 %)"),
        (report("t/a", "shift +5", 30), "shift +5 30.0 %"),
    ],
)  # fmt: skip
def test_a_line_says_what_a_plant_came_to(made: PlantReport, says: str) -> None:
    outcome = SelfTest(experiment="e", profile="p", trials=100, reports=[made], untested=[])
    assert list(lines(outcome)) == [f"selftest t/a seeds: {says}"]


def test_copies_of_the_run_have_a_line_each() -> None:
    made = [
        Outcome(name="a", caught=True, says="said"),
        Outcome(name="b", caught=False, says="said"),
        Outcome(name="c", caught=None, says=""),
    ]
    outcome = SelfTest(
        experiment="e", profile="p", trials=1, reports=[], untested=["t/z"], tampered=made
    )
    assert list(lines(outcome)) == [
        "selftest t/z: not tested, nothing to compare",
        "selftest run, a: caught (said)",
        "selftest run, b: NOT CAUGHT (said)",
        "selftest run, c: nothing to do it to",
    ]
