"""Figures: deterministic, well-formed, coloured by the page, safe against hostile labels."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec import convert, structs
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from kit.errors import InvalidInput
from kit.report.figures.calibration import MOST, calibration, quantiles
from kit.report.figures.curves import MOST_LINES, curve, gather, remarks_on
from kit.report.figures.forest import ForestRow, forest
from kit.results.types import Curve, Point, Series
from tests.report.extremes import HOSTILE

ROWS = [
    ForestRow(name="step 25", verdict="reproduced", published=2.4, zone=(0.0, 7.4), value=2.6),
    ForestRow(
        name="step 50", verdict="deviates", published=4.8, reference=(4.0, 5.0),
        value=11.0, interval=(8.0, 15.0),
    ),
]  # fmt: skip


def series(lines: Mapping[str, Mapping[str, Sequence[tuple[float, ...]]]], **fields: str) -> Series:
    """Line -> seed -> points."""
    made = {
        name: [Curve(seed=seed, points=convert(points, list[Point])) for seed, points in of.items()]
        for name, of in lines.items()
    }
    labels = {"id": "s", "title": "S", "x_label": "steps", "y_label": "loss", "unit": "loss"}
    return Series(lines=made, **(labels | fields))


SERIES = series(
    {f"arm {a}": {str(s): [(0.0, 1 + s), (1.0, 2 + s)] for s in range(3)} for a in "xy"}
)


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def figures() -> list[str]:
    scores = [i / 7 - 1 for i in range(20)]
    return [forest("f", "percent", ROWS), curve("c", SERIES), calibration(scores)]


def test_same_data_same_bytes() -> None:
    assert figures() == figures()


def test_same_bytes_in_another_process(tmp_path: Path) -> None:
    code = (
        "from tests.report.test_figures import figures; import hashlib;"
        "print(hashlib.sha256(''.join(figures()).encode()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ".", "PATH": "", "HOME": str(tmp_path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


@pytest.mark.parametrize("svg", figures(), ids=["forest", "curve", "calibration"])
def test_figure_takes_everything_from_the_page(svg: str) -> None:
    parse(svg)
    assert "http" not in svg
    assert "DejaVu" not in svg
    assert "<metadata" not in svg
    assert "currentColor" in svg
    assert not re.search(r"#0[1-7]0[1-7]0[1-7]|#1[0-5]1[0-5]1[0-5]", svg)
    assert re.findall(r"fill: #[0-9a-f]+|stroke: #[0-9a-f]+", svg) == []
    assert "<text" in svg


def test_ids_of_two_figures_do_not_meet() -> None:
    first, second = (set(re.findall(r' id="([^"]+)"', forest(n, "loss", ROWS))) for n in "ab")
    assert first
    assert not first & second


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_labels_stay_text(text: str) -> None:
    row = ForestRow(name=text, verdict="match", published=1.0, value=1.0)
    made = series(
        {text: {text: [(0, 1)]}, "b": {"": [(1, 2)]}},
        id=text,
        title=text,
        x_label=text,
        y_label=text,
    )
    for svg in (forest("f", text, [row]), curve("c", made)):
        tags = {element.tag for element in parse(svg).iter()}
        assert tags <= {"svg", "g", "defs", "path", "use", "text", "tspan", "clipPath", "rect"}
        assert not any(name.startswith("on") for e in parse(svg).iter() for name in e.attrib)


def test_labels_are_not_rewritten_like_markup() -> None:
    name = "a #010101 0.123456 id='x'"
    assert name in forest("f", "loss", [ForestRow(name=name, verdict="match", value=1.0)])


def test_seeds_become_one_line_with_a_t_interval() -> None:
    drawn = gather(SERIES)
    assert [(line.name, line.seeds) for line in drawn] == [("arm x", 3), ("arm y", 3)]
    assert [(point.x, point.value) for point in drawn[0].points] == [(0, 2.0), (1, 3.0)]
    half = stats.t.ppf(0.975, 2) * 1 / 3**0.5
    for point in drawn[0].points:
        assert point.interval is not None
        assert point.interval.low == pytest.approx(point.value - half)
        assert point.interval.high == pytest.approx(point.value + half)
    assert remarks_on(SERIES) == ["Lines are means over 3 seeds, bands their 95 % t intervals."]


def test_a_single_proportion_has_wilsons_interval() -> None:
    made = series({"a": {"": [(0, 0.0, 0, 20), (5, 25.0, 5, 20)]}}, unit="percent")
    (line,) = gather(made)
    for point, k in zip(line.points, (0, 5), strict=True):
        low, high = proportion_confint(k, 20, 0.05, "wilson")
        assert point.interval is not None
        assert (point.interval.low, point.interval.high) == pytest.approx((100 * low, 100 * high))
    assert remarks_on(made) == [
        "Bands of single runs are Wilson\u2019s 95 % intervals over their items."
    ]
    assert curve("c", made) != curve("c", series({"a": {"": [(0, 0.0), (5, 25.0)]}}))


def test_seeds_on_different_grids_stay_apart() -> None:
    drawn = gather(series({"a": {"1": [(0, 1)], "2": [(1, 1)]}}))
    assert [line.name for line in drawn] == ["a, 1", "a, 2"]


def test_points_that_some_seeds_lack_are_left_out_and_said() -> None:
    made = series({"a": {"1": [(0, 1), (1, 5)], "2": [(0, 2)]}, "empty": {"1": []}})
    (line,) = gather(made)
    assert [(point.x, point.value) for point in line.points] == [(0, 1.5)]
    assert "Points that not every seed of a line has are left out." in remarks_on(made)


def test_two_curves_of_a_seed_are_refused() -> None:
    line = [Curve(seed="1", points=[Point(0, 1)])] * 2
    with pytest.raises(InvalidInput, match="seed '1' stands twice"):
        gather(structs.replace(SERIES, lines={"a": line}))


def test_many_lines_and_points_are_cut_and_said() -> None:
    points = [(float(x), float(x)) for x in range(2000)]
    made = series({f"line {i}": {"": points} for i in range(MOST_LINES + 3)})
    svg, remarks = curve("c", made), remarks_on(made)
    assert any("first 12 of 15" in remark for remark in remarks)
    assert any("thinned" in remark for remark in remarks)
    assert len(svg) < 120_000
    line = gather(made)[0]
    assert (line.points[0].x, line.points[-1].x) == (0, 1999)


def test_quantiles_keep_both_ends() -> None:
    points = quantiles([float(i) for i in range(10_000)])
    assert len(points) <= MOST
    assert points[0][1] == 0
    assert points[-1][1] == 9999
    assert [y for _, y in points] == sorted(y for _, y in points)
    for few in ([2.0], [2.0, 1.0], [float(i) for i in range(MOST)]):
        assert [y for _, y in quantiles(few)] == sorted(few)


def test_empty_series_draws_an_empty_figure() -> None:
    svg, remarks = curve("c", series({})), remarks_on(series({}))
    parse(svg)
    assert remarks == []
