"""Where the names of a trade-off stand, computed by hand from points and sizes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kit.report.figures import forest, trade_off
from kit.report.figures.curves import Spot
from kit.report.figures.forest import ForestRow
from kit.report.figures.trade_off import APART, LINE, WIDTH, Setting
from tests.report.test_painted import Painted, painted

__all__ = ["painted"]  # a fixture


class Paper:
    """Axes 300 points wide whose data are pixels, and what is written on them."""

    def __init__(self, dpi: float) -> None:
        self.figure = SimpleNamespace(dpi=dpi)
        self.transData = SimpleNamespace(transform=lambda point: np.array(point, float))
        width = 300 * dpi / 72
        self.bbox = SimpleNamespace(intervalx=(0.0, width))
        self.written: dict[str, Any] = {}

    def autoscale_view(self) -> None:
        """Nothing to scale."""

    def annotate(self, text: str, point: tuple[float, float], **how: Any) -> None:
        self.written[text] = how | {"point": point}


def named(*points: tuple[str, float, float], dpi: float = 72) -> dict[str, Any]:
    """Names at points in units of 1/72 inch."""
    paper = Paper(dpi)
    trade_off._names(
        paper,  # type: ignore[arg-type]
        [
            Setting(name=name, measured=(Spot(value=x * dpi / 72), Spot(value=y * dpi / 72)))
            for name, x, y in points
        ],
    )
    return paper.written


def up(written: dict[str, Any]) -> dict[str, float]:
    """How far each name was moved up beyond its usual distance."""
    return {name: how["xytext"][1] - APART for name, how in written.items()}


def test_a_name_stands_beside_its_point() -> None:
    how = named(("aa", 100, 50))["aa"]
    assert how["xytext"] == (APART, APART)
    assert (how["ha"], how["arrowprops"], how["point"]) == ("left", None, (100, 50))


@pytest.mark.parametrize(("x", "side"), [(199, "left"), (200, "left"), (201, "right")])
def test_names_of_the_right_third_stand_to_the_left(x: float, side: str) -> None:
    how = named(("aa", x, 50))["aa"]
    assert how["ha"] == side
    assert how["xytext"][0] == (APART if side == "left" else -APART)


@pytest.mark.parametrize("dpi", [72, 144, 36])
@pytest.mark.parametrize(
    ("above", "moved"), [(0, LINE), (1, LINE - 1), (LINE - 0.1, 0.1), (LINE, 0), (LINE + 1, 0)]
)
def test_a_name_that_would_cover_another_moves_above_it(
    dpi: float, above: float, moved: float
) -> None:
    written = named(("aa", 100, 50), ("bb", 100, 50 + above), dpi=dpi)
    points = up(written)
    assert points["aa"] == pytest.approx(0)
    assert points["bb"] == pytest.approx(moved)
    assert (written["bb"]["arrowprops"] is not None) == (moved > 0)


@pytest.mark.parametrize(
    ("first", "second", "covers"),
    [
        (("aa", 100), ("bb", 100 + 2 * WIDTH - 0.1), True),
        (("aa", 100), ("bb", 100 + 2 * WIDTH), False),
        (("aa", 100 + 2 * WIDTH - 0.1), ("bb", 100), True),
        (("aa", 100 + 2 * WIDTH), ("bb", 100), False),
        (("aaaa", 100), ("b", 110), True),
        (("aaaa", 250), ("bb", 250 - 4 * WIDTH + 0.1), True),  # both stand to the left
        (("aaaa", 250), ("bb", 250 - 4 * WIDTH), False),
        # One to the right of its point and one to the left of its own meet in between.
        (("aa", 200), ("bb", 200 + 2 * APART + 4 * WIDTH - 0.1), True),
        (("aa", 200), ("bb", 200 + 2 * APART + 4 * WIDTH), False),
    ],
)
def test_names_cover_each_other_where_their_widths_overlap(
    first: tuple[str, float], second: tuple[str, float], covers: bool
) -> None:
    written = named((*first, 50), (*second, 50.5))
    assert up(written)[second[0]] == pytest.approx(LINE - 0.5 if covers else 0)


def test_a_third_name_moves_above_both() -> None:
    written = up(named(("c", 100, 52), ("a", 100, 50), ("b", 100, 51)))
    assert written == pytest.approx({"a": 0, "b": LINE - 1, "c": 2 * LINE - 2})


def test_a_name_that_moved_above_a_low_one_moves_above_a_high_one_too() -> None:
    """The low one was written after the high one, which had moved itself."""
    high, long = "b" * 8, "e" * 20
    made = up(named(("a", 100, 50), (high, 101, 50), ("d", 135, 50), (long, 201, 50)))
    assert made == pytest.approx({"a": 0, high: LINE, "d": 0, long: 2 * LINE})


def test_a_setting_without_numbers_has_no_name_and_the_published_stands_for_the_measured() -> None:
    paper = Paper(72)
    there = (Spot(value=10), Spot(value=20))
    trade_off._names(
        paper,  # type: ignore[arg-type]
        [Setting(name="none"), Setting(name="published", published=there)],
    )
    assert list(paper.written) == ["published"]
    assert paper.written["published"]["point"] == (10, 20)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_rows_of_a_forest_stand_whole_and_from_the_top(painted: Painted, count: int) -> None:
    rows = [
        ForestRow(name=f"r{i}", verdict="match", value=1.0, zone=(0, 2), reference=(0, 2))
        for i in range(count)
    ]
    ax = painted(forest.forest, "f", "percent", rows)
    bottom, top = ax.get_ylim()
    heights = [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in ax.patches]
    lines = [float(np.max(line.get_ydata())) for line in ax.get_lines()]
    assert bottom > max([*lines, *(high for _, high in heights)])
    assert top < min(low for low, _ in heights)
    # Less than half a row stays empty at either end.
    assert bottom < count - 1 + 1
    assert top > -1
