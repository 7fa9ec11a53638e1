"""Figures that an expectation asks for, and its numbers over measured curves."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest
from msgspec import structs
from statsmodels.stats.proportion import proportion_confint

from kit.manifest.expectation_types import (
    Expectation,
    ExpectedCell,
    Figure,
    FigureLine,
    FigurePublished,
)
from kit.report.declared import MAX_BESIDE, MOST_POINTS, MOST_ROWS, _over, declared
from kit.report.expected_points import expected_points
from kit.report.figures.curves import Mark, Spot, curve, remarks_on
from kit.report.figures.grid import STRONGEST, Square, grid
from kit.report.figures.trade_off import Setting, trade_off
from kit.report.gallery import Picture
from kit.results.curves import by_checkpoint
from kit.results.ids import matches
from kit.results.types import Cell, Results, SeedValue
from kit.verify.core import Subject, verify
from tests.report.extremes import HOSTILE
from tests.verify.builders import (
    expectation,
    expected_cell,
    line_of,
    reference,
    table,
    tolerance,
    trajectory_cell,
)

COEFFICIENTS, RANKS = ("1", "10", "100"), ("lora-8", "full")


def accuracy(metric: str, rank: str, coefficient: str, *hits: int) -> Cell:
    seeds = [SeedValue(seed=str(i), value=100 * k / 20, k=k, n=20) for i, k in enumerate(hits)]
    mean = sum(seed.value for seed in seeds) / len(seeds)
    return Cell(
        id=f"all/{metric}/{rank}@{coefficient}", unit="percent", value=mean, n=20, seeds=seeds
    )


CELLS = [
    accuracy(metric, rank, coefficient, 10 + i, 11 + i, 12 - j)
    for metric in ("forget", "retain")
    for i, rank in enumerate(RANKS)
    for j, coefficient in enumerate(COEFFICIENTS)
]


def known(id: str, value: str | None = None, **fields: Any) -> ExpectedCell:
    rule = tolerance("seeds", margin="2") if value is not None else None
    status = "reported" if value is not None else "unreported"
    return expected_cell(id, value, **({"tolerance": rule, "status": status, "n": 20} | fields))


EXPECTED = [
    known("all/forget/lora-8@1", "35"),
    known("all/forget/full@100", "55"),
    known("all/forget/full@1000", status="running"),
    known("all/retain/lora-8@1", "60"),
    *(known(f"all/retain/lora-8@{c}") for c in ("10", "100")),
]
GRID = Figure(
    kind="grid", title="Forget accuracy", cells=["all/forget/*@*"], x_label="coefficient",
    y_label="rank",
)  # fmt: skip
TRADE = Figure(kind="trade-off", title="Both", cells=["all/retain/*@*", "all/forget/*@*"])


def pictures(*figures: Figure, results: Results | None = None, **fields: Any) -> list[Picture]:
    expected = expectation(EXPECTED, figures=list(figures), **fields)
    made = results or table(CELLS)
    verdict = verify(Subject(expected=expected, results=made))
    return declared(made, verdict, expected)


def texts(svg: str) -> list[str]:
    found = (element.text for element in ElementTree.fromstring(svg).iter() if element.text)
    return [text.replace("\u2212", "-").strip() for text in found]


def test_a_grid_has_every_number_and_what_was_published() -> None:
    (picture,) = pictures(GRID)
    said = texts(picture.svg)
    for cell in CELLS:
        if "/forget/" in cell.id:
            assert f"{cell.value:.1f}" in said  # its interval is a few points wide
    assert {"(35)", "(55)", "(running)"} <= set(said)
    assert {"lora-8", "full", "coefficient", "rank"} <= set(said)
    assert [text for text in said if text in ("1", "10", "100", "1000")] == [
        "1",
        "10",
        "100",
        "1000",
    ]
    assert picture.caption.startswith("7 cells (percent). Shaded from 0 to 100.")
    assert "Framed: deviates" in picture.caption


def test_shades_follow_the_numbers() -> None:
    (picture,) = pictures(GRID)
    drawn = {float(text) for text in re.findall(r"opacity: (0\.\d+)", picture.svg)}
    values = {cell.value for cell in CELLS if "/forget/" in cell.id and cell.value is not None}
    wanted = {0.04 + (STRONGEST - 0.04) * value / 100 for value in values}
    assert len(drawn) == len(values)
    for shade, want in zip(sorted(drawn), sorted(wanted), strict=True):
        assert shade == pytest.approx(want, abs=1e-6)


def test_a_trade_off_has_a_point_a_setting_and_published_ones_over_them() -> None:
    (picture,) = pictures(TRADE)
    assert picture.caption.startswith("6 settings; lines are 95 % intervals. Hollow marks")
    assert {"lora-8 1", "full 100", "all/retain/*@* (percent)"} <= set(texts(picture.svg))
    without = [structs.replace(cell, value=None, tolerance=None) for cell in EXPECTED]
    expected = expectation(without, figures=[TRADE])
    verdict = verify(Subject(expected=expected, results=table(CELLS)))
    (plain,) = declared(table(CELLS), verdict, expected)
    assert "Hollow" not in plain.caption
    assert plain.svg != picture.svg


def test_points_of_the_documents_scale_stand_over_a_trade_off_in_its_units() -> None:
    over = FigurePublished(cells="big/mmlu/*", upward="big/wmdp/*")
    figure = structs.replace(TRADE, published=over)
    expected = expectation([], figures=[figure])
    made = table(CELLS)
    said = [
        structs.replace(known(f"big/{metric}/{row}", value), unit="fraction", n=868)
        for row, pair in {"a": ("0.35", "0.30"), "b": ("0.25", "0.40")}.items()
        for metric, value in zip(("mmlu", "wmdp"), pair, strict=True)
    ]
    said += [known("big/mmlu/c", "0.5"), known("big/wmdp/c", status="running")]
    published = expectation(said, scale="6.9B")
    verdict = verify(Subject(expected=expected, results=made))
    (picture,) = declared(made, verdict, expected, published)
    assert "Grey: 2 published settings (6.9B), big/mmlu/* and big/wmdp/*" in picture.caption
    (plain,) = declared(made, verdict, expected)
    assert "Grey" not in plain.caption
    assert plain.svg != picture.svg
    (turned, _) = _over(figure, published, ("fraction", "percent"))
    assert [spot.value for spot in turned] == pytest.approx([0.35, 30])
    first, second = _over(figure, published, ("percent", "percent"))
    assert [spot.value for spot in (*first, *second)] == pytest.approx([35, 30, 25, 40])
    low, high = proportion_confint(0.35 * 868, 868, 0.05, "wilson")
    assert first[0].interval == pytest.approx((100 * low, 100 * high))


def test_figures_ask_trajectories_too() -> None:
    attacks = {
        f"all/attacked/{defence}@{attack}": {
            str(s): [(0, 25.0), (50, top + s), (100, 40.0)] for s in range(3)
        }
        for defence, attack, top in (
            ("tar", "sgd", 30.0),
            ("tar", "adamw", 45.0),
            ("none", "sgd", 90.0),
        )
    }
    made = table(
        [trajectory_cell(id, "percent") for id in attacks],
        series=[line_of(id, seeds, "percent") for id, seeds in attacks.items()],
    )
    figures = [
        Figure(kind="grid", title="worst", cells=["all/attacked/*@*:max"]),
        Figure(kind="grid", title="when", cells=["all/attacked/*@*:first-above:50"]),
        Figure(kind="trade-off", title="both", cells=["all/*/*@*:end", "all/*/*@*:max"]),
    ]
    worst, when, both = pictures(*figures, results=made)
    assert {"91.0", "46.0", "40"} <= set(texts(worst.svg))
    assert {"50", "> 100"} <= set(texts(when.svg)), "never crossed: beyond the last step"
    assert both.caption.startswith("3 settings")


def test_what_was_not_measured_says_why() -> None:
    cells = [*CELLS[1:], Cell(id=CELLS[0].id, unit="percent", not_run="no judge")]
    (picture,) = pictures(GRID, results=table(cells))
    assert "not-run" in texts(picture.svg)
    assert "(35)" in texts(picture.svg)


def test_a_grid_too_large_to_read_is_cut_and_says_so() -> None:
    cells = [accuracy("forget", f"r{i}", "1", 1, 2) for i in range(MOST_ROWS + 5)]
    expected = expectation([], figures=[GRID])
    verdict = verify(Subject(expected=expected, results=table(cells)))
    (picture,) = declared(table(cells), verdict, expected)
    assert "45 cells (percent)" in picture.caption
    assert f"{MOST_ROWS} of them are drawn." in picture.caption


def test_without_figures_or_results_nothing_is_drawn() -> None:
    assert pictures() == []
    expected: Expectation = expectation(EXPECTED, figures=[GRID])
    verdict = verify(Subject(expected=expected, results=table(CELLS)))
    assert declared(None, verdict, expected) == []
    assert declared(table(CELLS), verdict, None) == []


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_labels_stay_text(text: str) -> None:
    squares = [Square(row=0, column=0, text=text, shade=0.5, published=text, verdict=text)]
    spots = (Spot(value=1.0, interval=(0.0, 2.0)), Spot(value=1.0))
    settings = [Setting(name=text, measured=spots, published=spots)]
    for svg in (
        grid("g", [text], [text], squares, (text, text)),
        trade_off("t", settings, (text, text)),
    ):
        tags = {element.tag for element in ElementTree.fromstring(svg).iter()}
        assert tags <= {"svg", "g", "defs", "path", "use", "text", "tspan", "clipPath", "rect"}


def test_figures_take_everything_from_the_page_and_are_the_same_again() -> None:
    for first, second in zip(pictures(GRID, TRADE), pictures(GRID, TRADE), strict=True):
        assert first.svg == second.svg
        assert re.findall(r"fill: #[0-9a-f]+|stroke: #[0-9a-f]+", first.svg) == []
        assert "<image" not in first.svg
        assert "currentColor" in first.svg


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a/*/x", {("b",): "a/b/x"}),
        ("*/*/x@*", {("a", "b", "1"): "a/b/x@1", ("a", "c.d", "1"): "a/c.d/x@1"}),
        ("a/b/x:max", {(): "a/b/x:max"}),
        ("a/*:max", {}),
    ],
)
def test_patterns(pattern: str, found: dict[tuple[str, ...], str]) -> None:
    assert matches(pattern, ["a/b/x", "a/b/x@1", "a/c.d/x@1", "a/b/x@1@2", "a/b/x:max"]) == found


# -- what is handed to the drawing


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Arguments of every figure that is drawn, in their order."""
    made: list[tuple[Any, ...]] = []

    def drawn(draw: Any, *data: Any) -> str:
        made.append(data)
        return ""

    monkeypatch.setattr("kit.report.declared.drawn", drawn)
    return made


STEPS = Figure(
    kind="steps", title="Loss", x_label="steps", y_label="loss",
    lines=[FigureLine(name="A", series="t/a", line="t/a", start="t/start"),
           FigureLine(name="B", series="t/b", line="t/b", start="t/none"),
           FigureLine(name="none", series="t/none", line="x"),
           FigureLine(name="other line", series="t/a", line="x")],
    published=FigurePublished(cells="doc/loss/*", start="doc/loss/before"),
)  # fmt: skip


def test_measured_lines_start_at_what_was_before_the_first_step(handed: list[Any]) -> None:
    start = Cell(
        id="t/start", unit="fraction", value=0.9,
        seeds=[SeedValue(seed="0", value=0.8, k=8, n=10), SeedValue(seed="1", value=1.0)],
    )  # fmt: skip
    made = table(
        [start],
        series=[
            line_of("t/a", {"1": [(5, 0.5)], "2": [(5, 0.4)]}, "fraction"),
            line_of("t/b", {"0": [(5, 0.3)]}, "fraction"),
        ],
    )
    said = [
        structs.replace(known(f"doc/loss/{row}", value), unit="percent", n=None)
        for row, value in (("before", "90"), ("5", "50"), ("7.5", "40"), ("last", "1"))
    ]
    published = expectation([*said, known("doc/loss/9")], scale="7B")
    expected = expectation([], figures=[STEPS, STEPS])
    verdict = verify(Subject(expected=expected, results=made))
    first, second = declared(made, verdict, expected, published)
    assert (first.wide, second.wide) == (False, True)
    assert "Stars: published, 7B" in first.caption
    name, whole, marks, size = handed[0]
    assert (name, handed[1][0]) == ("figure-0", "figure-1")
    assert size[0] < handed[1][3][0], "the first stands beside the claims"
    assert all(high < wide < 2 * high for wide, high in (size, handed[1][3]))
    assert (whole.x_label, whole.y_label, whole.unit) == ("steps", "loss", "fraction")
    points = {
        line: {curve.seed: [(p.x, p.value, p.k, p.n) for p in curve.points] for curve in curves}
        for line, curves in whole.lines.items()
    }
    assert points == {
        "A": {"1": [(0, 1.0, None, None), (5, 0.5, None, None)], "2": [(5, 0.4, None, None)]},
        "B": {"0": [(5, 0.3, None, None)]},
    }
    ((label, over),) = marks.items()
    assert label == "published, 7B"
    assert [mark.x for mark in over] == [0, 5, 7.5]
    assert [mark.value for mark in over] == pytest.approx([0.9, 0.5, 0.4])
    declared(made, verdict, expected, None)
    assert handed[-1][2] == {}
    declared(made, verdict, expected, structs.replace(published, scale=""))
    assert list(handed[-1][2]) == ["published"]


def test_shades_go_from_the_least_to_the_largest_where_no_whole_is_known(
    handed: list[Any],
) -> None:
    cells = [Cell(id=f"all/forget/{row}@{c}", unit="loss", value=v)
             for row, c, v in (("b", "10", 3.0), ("b", "2", 1.0), ("a", "10", 2.0))]  # fmt: skip
    expected = expectation([], figures=[GRID])
    made = table(cells)
    (picture,) = declared(made, verify(Subject(expected=expected, results=made)), expected)
    _, rows, columns, squares, labels = handed[0]
    assert (rows, columns, labels) == (["b", "a"], ["2", "10"], ("coefficient", "rank"))
    shades = {(square.row, square.column): square.shade for square in squares}
    assert shades == {(0, 1): 1.0, (0, 0): 0.0, (1, 1): 0.5}
    assert "Shaded from 1 to 3." in picture.caption
    assert not picture.wide
    alike = table([structs.replace(cell, value=2.0) for cell in cells])
    declared(alike, verify(Subject(expected=expected, results=alike)), expected)
    assert {square.shade for square in handed[1][3]} == {0.5}
    many = table([structs.replace(cells[0], id=f"all/forget/a@{i}") for i in range(MAX_BESIDE + 1)])
    (wide,) = declared(many, verify(Subject(expected=expected, results=many)), expected)
    assert wide.wide


def test_a_square_says_what_there_is_of_its_cell(handed: list[Any]) -> None:
    said = [
        known("all/forget/a@1", reference=reference(["10", "20"]), tolerance=None),
        known("all/forget/a@2", status="running"),
        known("all/forget/a@3"),
    ]
    expected = expectation(said, figures=[GRID])
    made = table([Cell(id="all/forget/a@1", unit="percent", value=50.0)])
    verdict = verify(Subject(expected=expected, results=made))
    declared(made, verdict, expected)
    squares = {square.column: square for square in handed[0][3]}
    assert [squares[i].published for i in range(3)] == ["(15)", "(running)", ""]
    assert [squares[i].shade for i in range(3)] == [0.5, None, None]
    assert squares[0].text.startswith("50")
    words = {report.id: report.verdict for report in verdict.cells}
    assert squares[1].text == words.get("all/forget/a@2", "not measured")


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_trade_off_is_cut_where_nobody_could_read_it(handed: list[Any], beyond: int) -> None:
    count = MOST_POINTS + beyond
    cells = [accuracy(metric, f"r{i}", "1", 1, 2)
             for metric in ("forget", "retain") for i in range(count)]  # fmt: skip
    figure = structs.replace(TRADE, x_label="given")
    expected = expectation([], figures=[figure])
    made = table([*cells, accuracy("retain", "alone", "1", 3, 4)])
    (picture,) = declared(made, verify(Subject(expected=expected, results=made)), expected)
    _, settings, labels, over, _ = handed[0]
    assert (len(settings), over) == (MOST_POINTS, [])
    assert labels == ("given", "all/forget/*@* (percent)")
    assert (f"The first {MOST_POINTS} of {count} are drawn." in picture.caption) == bool(beyond)
    assert "Hollow" not in picture.caption


# -- expected numbers over curves


def test_a_published_curve_stands_over_its_line() -> None:
    series = line_of("t/a", {"s": [(0, 0.5, 10, 20), (10, 0.25, 5, 20)]}, "fraction")
    said = expected_cell("t/a", None, series=[["0", "50"], ["10", "20"]], n=20)
    marks = expected_points(series, {"t/a": said}, [trajectory_cell("t/a", "fraction")])
    first, second = marks["t/a"]
    low, high = proportion_confint(10, 20, 0.05, "wilson")
    assert (first.x, first.value) == (0, 0.5)
    assert first.interval == pytest.approx((low, high))
    assert (second.x, second.value) == (10, pytest.approx(0.2))
    assert curve("c", series, marks) != curve("c", series)
    assert any("Hollow marks" in remark for remark in remarks_on(series, marks))
    assert expected_points(series, {"t/b": said}, [trajectory_cell("t/a", "fraction")]) == {}
    loss = structs.replace(said, unit="loss")
    assert expected_points(series, {"t/a": loss}, [trajectory_cell("t/a", "fraction")]) == {}


def test_checkpoint_cells_stand_over_the_curve_that_they_make() -> None:
    cells = [accuracy("asr", f"adapt-{step}", "0.1", k, k + 1) for step, k in ((5, 9), (25, 3))]
    (series,) = by_checkpoint(cells, "asr")
    expected = {
        "all/asr/adapt-5@0.1": known("all/asr/adapt-5@0.1", "45"),
        "all/asr/adapt-25@0.1": known("all/asr/adapt-25@0.1", reference=reference(["10", "20"])),
        "all/asr/adapt-5@0.2": known("all/asr/adapt-5@0.2", "99"),
    }
    marks = expected_points(series, expected, cells)["adapt @ 0.1"]
    assert [(mark.x, mark.value) for mark in marks] == [(5, 45), (25, 15)]
    assert marks[0].interval is not None
    assert marks[1].interval is None, "a mean of reference runs is no proportion of n items"


def test_marks_of_a_line_that_is_drawn_seed_by_seed_are_drawn_once() -> None:
    series = line_of("t/a", {"1": [(0, 1)], "2": [(1, 1)]})
    marks = {"t/a": [Mark(x=0, value=1.0)]}
    svg, plain = curve("c", series, marks), curve("c", series)
    assert svg.count("<use") == plain.count("<use") + 1


def test_names_of_points_that_coincide_do_not_cover_each_other() -> None:
    from itertools import combinations

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from kit.report.figures.trade_off import _names

    places = [(99.0, 76.0 + i / 9) for i in range(6)] + [(40.0, 30.0), (60.0, 30.5), (70.0, 30.6)]
    settings = [
        Setting(name=f"ret0-rm2000-full-{i}", measured=(Spot(value=x), Spot(value=y)))
        for i, (x, y) in enumerate(places)
    ]
    figure = Figure(figsize=(7.2, 4.6))
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    ax.plot([x for x, _ in places], [y for _, y in places], "o")
    _names(ax, settings)
    canvas.draw()
    assert len(ax.texts) == len(places)
    # An annotation with a line reaches to its point: the text alone is asked.
    from matplotlib.text import Text

    boxes = [Text.get_window_extent(text) for text in ax.texts]
    assert not any(one.overlaps(two) for one, two in combinations(boxes, 2))
