"""What stands where in a figure, read from the axes that it paints on."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from msgspec import convert

from kit.report.figures import calibration, curves, forest, grid, style, trade_off
from kit.report.figures.curves import Mark, Spot
from kit.report.figures.forest import ForestRow
from kit.report.figures.grid import Square
from kit.report.figures.trade_off import Setting
from kit.results.types import Curve, Point, Series

Painted = Callable[..., Any]


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> Painted:
    """Calls the function of a figure and returns its axes."""
    made: list[Axes] = []

    def draw(name: str, width: float, height: float, paint: Callable[[Axes], None]) -> str:
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        made.append(figure.add_subplot())
        paint(made[-1])
        return ""

    for module in (calibration, curves, forest, grid, trade_off):
        monkeypatch.setattr(module, "draw", draw)

    def call(function: Callable[..., str], *arguments: Any) -> Axes:
        function(*arguments)
        return made.pop()

    return call


def lines(ax: Axes, marker: str) -> list[tuple[list[float], list[float], str]]:
    """Coordinates and colour of the lines with a marker; ``None`` are plain ones."""
    return [
        ([*map(float, line.get_xdata())], [*map(float, line.get_ydata())],
         to_hex(line.get_markeredgecolor() if marker != "None" else line.get_color()))
        for line in ax.get_lines() if str(line.get_marker()) == marker
    ]  # fmt: skip


def filled(ax: Axes) -> list[Line2D]:
    """Lines with at least one point."""
    return [line for line in ax.get_lines() if len(line.get_xdata())]  # type: ignore[arg-type]


def labels(axis: Any) -> list[str]:
    return [text.get_text() for text in axis.get_ticklabels()]


def guided(ax: Axes) -> tuple[bool, bool]:
    """Whether faint lines lead from the ticks of x and of y, below what is drawn."""
    assert ax.get_axisbelow() is True
    x, y = (any(line.get_visible() for line in of())
            for of in (ax.get_xgridlines, ax.get_ygridlines))  # fmt: skip
    return x, y


# -- forest


def test_a_row_shows_margin_reference_published_and_measured_number(painted: Painted) -> None:
    rows = [
        ForestRow(name="plain", verdict="", value=3.0),
        ForestRow(
            name="whole", verdict="deviates", published=2.0, zone=(1.0, 4.0), reference=(1.5, 5.0),
            value=9.0, interval=(7.0, 12.0),
        ),
        ForestRow(name="open", verdict="not-run", published=6.0),
    ]  # fmt: skip
    ax = painted(forest.forest, "f", "percent", rows)
    assert labels(ax.yaxis) == ["plain", "whole", "open"]
    low, high = ax.get_ylim()
    assert low > 2 > 0 > high, "from top to bottom, whole rows"
    (zone,) = ax.patches
    assert isinstance(zone, Rectangle)
    assert (zone.get_x(), zone.get_width()) == (1.0, 3.0)
    assert zone.get_y() + zone.get_height() / 2 == pytest.approx(1)
    assert 0.4 < zone.get_height() < 1
    assert lines(ax, "|") == [([2.0], [1.0], style.INK), ([6.0], [2.0], style.INK)]
    (reference, interval) = lines(ax, "None")
    assert reference[0] == [1.5, 5.0]
    assert 1.2 < reference[1][0] == reference[1][1] < 1.5, "below the row, above the next"
    assert interval == ([7.0, 12.0], [1.0, 1.0], style.BAD)
    assert lines(ax, "s") == [([9.0], [1.0], style.BAD)]
    assert lines(ax, "o") == [([3.0], [0.0], style.MUTED)]
    assert guided(ax) == (True, False)
    assert not ax.spines["left"].get_visible()
    assert ax.yaxis.get_major_ticks()[0].tick1line.get_markersize() == 0
    assert ax.get_xlim()[0] < 1, "a mark at the edge stays whole"
    assert ax.get_xlabel() == "percent"


def test_verdicts_differ_in_colour_and_mark(painted: Painted) -> None:
    words = ("match", "reproduced", "inconclusive", "deviates", "invalid", "not-compared")
    rows = [ForestRow(name=word, verdict=word, value=1.0) for word in words]
    drawn = [(line.get_marker(), to_hex(line.get_color()))
             for line in painted(forest.forest, "f", "loss", rows).get_lines()]  # fmt: skip
    assert drawn[0] == drawn[1]
    assert len({colour for _, colour in drawn}) == 5
    assert len({marker for marker, _ in drawn[1:5]}) == 4


# -- grid


def square(row: int, column: int, **fields: Any) -> Square:
    return Square(row=row, column=column, **({"text": "1", "shade": 0.5} | fields))


def test_squares_lie_in_their_rows_and_columns(painted: Painted) -> None:
    squares = [square(row, column) for row in range(2) for column in range(3)]
    ax = painted(grid.grid, "g", ["a", "b"], ["1", "2", "3"], squares, ("x", "y"))
    assert (labels(ax.xaxis), labels(ax.yaxis)) == (["1", "2", "3"], ["a", "b"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")
    assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 2.5), (1.5, -0.5)), "all of them, no more"
    for at, patch in zip(squares, ax.patches, strict=True):
        assert isinstance(patch, Rectangle)
        left, top = patch.get_xy()
        wide, high = patch.get_width(), patch.get_height()
        assert (left + wide / 2, top + high / 2) == pytest.approx((at.column, at.row))
        assert 0.9 < wide < 1
        assert 0.9 < high < 1, "a gap between neighbours"
    assert not any(spine.get_visible() for spine in ax.spines.values())
    assert {tick.tick1line.get_markersize() for tick in ax.xaxis.get_major_ticks()} == {0}


def test_a_shade_is_faint_at_the_least_value_and_grows_evenly(painted: Painted) -> None:
    squares = [square(0, i, shade=of) for i, of in enumerate((-1.0, 0.0, 0.5, 1.0, 7.0))]
    ax = painted(grid.grid, "g", ["a"], list("12345"), squares, ("x", "y"))
    below, least, middle, most, above = (float(patch.get_alpha() or 0) for patch in ax.patches)
    assert below == least
    assert 0 < least < 0.1
    assert middle == pytest.approx((least + most) / 2)
    assert most == above == grid.STRONGEST


def test_what_deviates_is_framed_and_what_is_open_is_dashed(painted: Painted) -> None:
    words = ("deviates", "invalid", "inconclusive", "reproduced")
    squares = [square(0, i, verdict=word, shade=None) for i, word in enumerate(words)]
    ax = painted(grid.grid, "g", ["a"], list("1234"), squares, ("x", "y"))
    empty = [p for p in ax.patches if to_hex(p.get_edgecolor()) == style.RULE]
    assert len(empty) == len(words), "what was not measured has a thin edge"
    frames = [p for p in ax.patches if p not in empty]
    assert [to_hex(p.get_edgecolor()) for p in frames] == [style.BAD, style.VOID, style.OPEN]
    assert [p.get_linestyle() in ("-", "solid") for p in frames] == [True, True, False]
    assert not any(p.get_fill() and p.get_facecolor()[3] for p in ax.patches)
    assert [frame.get_x() < i < frame.get_x() + 1 for i, frame in enumerate(frames)] == [True] * 3


def test_a_published_number_stands_below_the_measured_one(painted: Painted) -> None:
    squares = [square(0, 0, published="(3)"), square(0, 1, text="not-run", shade=None)]
    ax = painted(grid.grid, "g", ["a"], ["1", "2"], squares, ("x", "y"))
    measured, published, absent = ax.texts
    assert [t.get_text() for t in ax.texts] == ["1", "(3)", "not-run"]
    assert -0.4 < measured.get_position()[1] < 0 < published.get_position()[1] < 0.4
    assert absent.get_position() == (1, 0), "alone it stands in the middle"
    assert {t.get_horizontalalignment() + t.get_verticalalignment() for t in ax.texts} == {
        "centercenter"
    }
    colours = [to_hex(str(t.get_color())) for t in ax.texts]
    assert colours == [style.INK, style.MUTED, style.MUTED]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a-" + "b" * (grid.MAX_LINE - 2), None),
        ("a-" + "b" * (grid.MAX_LINE - 1), "a-\n" + "b" * (grid.MAX_LINE - 1)),
        ("b" * (grid.MAX_LINE + 1), None),
    ],
)
def test_a_long_name_of_a_column_is_broken_at_its_hyphen(
    painted: Painted, name: str, shown: str | None
) -> None:
    ax = painted(grid.grid, "g", ["a"], [name], [square(0, 0)], ("x", "y"))
    assert labels(ax.xaxis) == [shown or name]


# -- calibration


@pytest.mark.parametrize("scores", [[-0.5, 0.1, 0.2, 0.3, 1.0], [-7.0, -1.0, 0.0, 1.0, 2.0]])
def test_scores_lie_about_a_diagonal_with_chance_s_band(
    painted: Painted, scores: list[float]
) -> None:
    ax = painted(calibration.calibration, scores)
    limits = ax.get_xlim()
    assert limits == ax.get_ylim()
    assert -limits[0] == limits[1]
    most = max(3.0, *(abs(score) for score in scores))
    assert most * 1.01 < limits[1] < most * 1.2
    assert ax.get_aspect() == 1
    diagonal, mean = lines(ax, "None")
    assert diagonal[0] == diagonal[1] == list(limits)
    assert mean[1] == pytest.approx([sum(scores) / 5] * 2)
    ((xs, ys, colour),) = lines(ax, "o")
    assert colour == style.SERIES[0]
    assert ys == sorted(scores)
    assert xs == pytest.approx([NormalDist().inv_cdf((2 * i + 1) / 10) for i in range(5)])
    (band,) = ax.collections
    edges = band.get_paths()[0].vertices
    half = NormalDist().inv_cdf(0.975)
    assert (min(edges[:, 0]), max(edges[:, 0])) == limits
    assert (min(edges[:, 1]), max(edges[:, 1])) == pytest.approx((-half, half), abs=0.01)
    (text,) = ax.texts
    assert text.get_text() == f"mean {sum(scores) / 5:+.2f}".replace("-", "\u2212")
    assert text.xy == pytest.approx((limits[0], sum(scores) / 5))
    assert ax.get_xlabel()
    assert ax.get_ylabel()


# -- curves


def series(lines: dict[str, list[tuple[float, ...]]], unit: str = "loss") -> Series:
    made = {name: [Curve(points=convert(of, list[Point]))] for name, of in lines.items()}
    return Series(id="s", title="S", x_label="steps", y_label="y", unit=unit, lines=made)


def test_lines_differ_by_colour_dash_and_mark_and_are_named(painted: Painted) -> None:
    made = {f"line {i}": [(0.0, 1.0 * i), (1.0, 2.0 * i)] for i in range(4)}
    ax = painted(curves.curve, "c", series(made))
    drawn = filled(ax)
    for of in ("get_color", "get_linestyle", "get_marker"):
        assert len({getattr(line, of)() for line in drawn}) > 1
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == 4
    assert [list(line.get_ydata()) for line in drawn] == [[1.0 * i, 2.0 * i] for i in range(4)]
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(made)
    assert [line.get_color() for line in legend.get_lines()] == [line.get_color() for line in drawn]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("steps", "y")
    assert guided(ax) == (False, True)
    assert painted(curves.curve, "c", series({"a": [(0.0, 1.0)]})).get_legend() is None


@pytest.mark.parametrize(
    ("count", "marked"), [(curves.MANY - 1, True), (curves.MANY, False), (2 * curves.MANY, False)]
)
def test_points_of_short_lines_are_marked(painted: Painted, count: int, marked: bool) -> None:
    made = series({"a": [(float(x), 0.0) for x in range(count)]})
    (line,) = filled(painted(curves.curve, "c", made))
    assert (line.get_marker() != "") == marked


def test_a_band_closes_up_where_a_point_has_no_interval(painted: Painted) -> None:
    made = series({"a": [(0.0, 50.0, 10, 20), (1.0, 30.0)]}, "percent")
    (band,) = painted(curves.curve, "c", made).collections
    edges = band.get_paths()[0].vertices
    at = [{round(float(y), 6) for x, y in edges if x == where} for where in (0, 1)]
    assert len(at[0]) == 2
    assert min(at[0]) < 50 < max(at[0])
    assert at[1] == {30.0}


def test_marks_are_hollow_in_their_line_s_colour_and_stars_alone(painted: Painted) -> None:
    made = series({"a": [(0.0, 1.0), (1.0, 2.0)], "b": [(0.0, 3.0), (1.0, 4.0)]})
    said = [Mark(x=1.0, value=2.5, interval=(2.0, 3.0)), Mark(x=0.0, value=1.5)]
    marks = {"b": said, "elsewhere": [Mark(x=0.5, value=9.0)]}
    ax = painted(curves.curve, "c", made, marks)
    _, b, interval, hollow, star = filled(ax)
    assert (list(interval.get_xdata()), list(interval.get_ydata())) == ([1.0, 1.0], [2.0, 3.0])
    assert list(hollow.get_ydata()) == [2.5, 1.5]
    assert (hollow.get_marker(), hollow.get_markeredgecolor()) == (b.get_marker(), b.get_color())
    assert {of.get_markerfacecolor() for of in (hollow, star)} == {"none"}
    assert {of.get_linestyle() for of in (hollow, star)} == {"None"}
    assert (star.get_marker(), to_hex(star.get_markeredgecolor())) == ("*", style.INK)
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "elsewhere"]
    assert legend.get_lines()[-1].get_marker() == "*"


# -- trade-off


def spots(x: float, y: float) -> tuple[Spot, Spot]:
    return Spot(value=x, interval=(x - 1, x + 1)), Spot(value=y, interval=(y - 2, y + 2))


def test_a_setting_has_crosses_and_is_joined_to_what_was_published(painted: Painted) -> None:
    settings = [
        Setting(name="both", measured=spots(10, 20), published=spots(30, 40)),
        Setting(name="measured", measured=(Spot(value=1), Spot(value=2))),
        Setting(name="published", published=(Spot(value=3), Spot(value=4))),
    ]
    ax = painted(trade_off.trade_off, "t", settings, ("x", "y"), [spots(50, 60)])
    assert lines(ax, "D") == [([50.0], [60.0], style.MUTED)]
    plain = [(xs, ys) for xs, ys, _ in lines(ax, "None")]
    for x, y in ((10, 20), (30, 40), (50, 60)):
        assert ([x - 1, x + 1], [y, y]) in plain
        assert ([x, x], [y - 2, y + 2]) in plain
    assert ([30.0, 10.0], [40.0, 20.0]) in plain
    assert len(plain) == 7, "numbers without an interval have no cross, and alone no line"
    points = [line for line in ax.get_lines() if str(line.get_marker()) not in ("None", "D")]
    where = {(*line.get_xdata(), *line.get_ydata()): line for line in points}
    assert where.keys() == {(10, 20), (30, 40), (1, 2), (3, 4)}
    hollow = {at for at, line in where.items() if line.get_markerfacecolor() == "none"}
    assert hollow == {(30, 40), (3, 4)}
    assert where[10, 20].get_marker() == where[30, 40].get_marker()
    assert where[10, 20].get_markeredgecolor() == where[30, 40].get_markeredgecolor()
    assert len({(line.get_marker(), line.get_markeredgecolor()) for line in points}) == 3
    assert guided(ax) == (True, True)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")
    assert {text.get_text() for text in ax.texts} == {"both", "measured", "published"}


@pytest.mark.parametrize("more", [0, 1])
def test_too_many_settings_are_not_named(painted: Painted, more: int) -> None:
    count = trade_off.NAMED + more
    settings = [Setting(name=f"s{i}", measured=spots(i, i * i)) for i in range(count)]
    assert len(painted(trade_off.trade_off, "t", settings, ("x", "y")).texts) == (
        0 if more else count
    )


def test_names_stand_close_beside_their_points_and_inside(painted: Painted) -> None:
    """Only what would be covered moves, by no more than lines need; on the right they turn."""
    where = {"left": (0, 0), "next": (40, 0), "middle": (67, 50)}
    where |= {"right": (72, 90), "edge": (100, 0)}
    settings = [Setting(name=name, measured=(Spot(value=x), Spot(value=y)))
                for name, (x, y) in where.items()]  # fmt: skip
    settings += [Setting(name=f"same-{i}", measured=(Spot(value=20), Spot(value=30)))
                 for i in range(3)]  # fmt: skip
    ax = painted(trade_off.trade_off, "t", settings, ("x", "y"))
    known = {text.get_text(): text for text in ax.texts}
    turned = {name for name, text in known.items() if text.get_horizontalalignment() == "right"}
    assert turned == {"right", "edge"}, "the right third"
    for name, text in known.items():
        x, y = text.xyann
        assert 3 < abs(x) < 8, "beside the mark, whose radius is about three points"
        assert (x < 0) == (name in turned)
        if not name.startswith("same"):
            assert 3 < y < 8
            assert text.arrow_patch is None
    heights = sorted(known[f"same-{i}"].xyann[1] for i in range(3))
    steps = [high - low for low, high in pairwise(heights)]
    size = known["left"].get_fontsize()
    assert all(size < step < 2 * size for step in steps)
    moved = [known[f"same-{i}"].arrow_patch is not None for i in range(3)]
    assert moved.count(True) == 2, "a line leads from a name that moved to its point"


def test_names_that_have_room_side_by_side_do_not_move(painted: Painted) -> None:
    """A character counts as wide as it is, within a half."""
    ax = painted(trade_off.trade_off, "t", [
        Setting(name="n" * 10, measured=(Spot(value=x), Spot(value=y)))
        for x, y in ((0, 0), (20, 0), (100, 100))
    ], ("x", "y"))  # fmt: skip
    first, second = (text for text in ax.texts if text.xy[1] == 0)
    assert first.xyann == second.xyann
