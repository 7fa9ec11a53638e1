"""Figures that an expectation asks for, and its numbers over measured curves."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest
from msgspec import structs
from statsmodels.stats.proportion import proportion_confint

from kit.manifest.expectation_types import Expectation, ExpectedCell, Figure, FigurePublished
from kit.report.declared import MOST_ROWS, _over, declared
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
