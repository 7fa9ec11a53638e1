"""Which figures a report has, what is drawn of them, and what stands under them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from kit.report import gallery
from kit.report.figures.calibration import ENOUGH
from kit.report.figures.forest import LIMIT, ForestRow
from kit.verify.verdict import Interval
from tests.report.builders import cell, verdict
from tests.verify.builders import expected_cell, line_of, reference, table


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[list[ForestRow]]:
    """What every forest plot was given, instead of the pictures."""
    seen: list[list[ForestRow]] = []

    def drawn(how: Any, name: str, unit: str, made: list[ForestRow]) -> str:
        seen.append(made)
        return f"<svg>{name} {unit}</svg>"

    monkeypatch.setattr(gallery, "drawn", drawn)
    return seen


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 cells of this run have"), (1, "1 cell of this run has"),
                         (ENOUGH - 1, "4 cells of this run have"), (ENOUGH, "")]
)  # fmt: skip
def test_calibration_needs_enough_scores(count: int, words: str) -> None:
    cells = [cell(f"t/{i}", z=0.1 * i) for i in range(count)]
    picture, why = gallery.calibration_picture(verdict(cells=[*cells, cell("t/none", z=None)]))
    assert (picture is None) == bool(words)
    assert why.startswith(words)
    if words:
        assert why.endswith(f"noise model; fewer than {ENOUGH} show nothing about calibration.")
    if picture is not None:
        assert picture.caption.startswith(f"Normal scores of {count} cells, sorted")
        assert not picture.wide


def test_a_figure_a_table_and_unit_the_gravest_first(rows: list[list[ForestRow]]) -> None:
    many = gallery.MOST_FORESTS + 2
    cells = [cell(f"t{i}/a", verdict="reproduced") for i in range(many)]
    cells[-1] = structs.replace(cells[-1], verdict="deviates")
    cells += [cell("t0/b", unit="loss"), cell("t0/none", value=None)]
    cells += [cell("t1/c", published=None, unit="seconds")]
    pictures, remark = gallery.forests(verdict(cells=cells), {})
    assert [picture.title for picture in pictures] == [*(f"t{i}" for i in range(7)), f"t{many - 1}"]
    assert remark == (
        "3 further tables would make a figure; those with the gravest verdicts are drawn."
    )
    assert [len(of) for of in rows] == [1] * len(pictures)
    pictures, remark = gallery.forests(verdict(cells=cells[:2]), {})
    assert (len(pictures), remark) == (2, "")
    assert pictures[0].caption == "1 cell (percent)."


def test_a_cell_with_reference_runs_is_drawn_without_a_published_number(
    rows: list[list[ForestRow]],
) -> None:
    known = expected_cell("t/a", None, status="reference", reference=reference(["4", "9", "6"]))
    made = verdict(cells=[cell("t/a", published=None, margin=None)])
    (picture,), _ = gallery.forests(made, {"t/a": known})
    assert rows[0][0].reference == (4.0, 9.0)
    assert rows[0][0].published is None
    assert picture.caption.endswith(
        "The line below a row is the range of the kit\u2019s reference runs."
    )
    assert gallery.forests(made, {}) == ([], "")


@pytest.mark.parametrize("beyond", [0, 1])
def test_the_gravest_rows_of_a_large_table_keep_their_order(
    rows: list[list[ForestRow]], beyond: int
) -> None:
    cells = [cell(f"t/{i}", verdict="match") for i in range(LIMIT + beyond)]
    cells[-1] = structs.replace(cells[-1], verdict="deviates")
    (picture,), _ = gallery.forests(verdict(cells=cells), {})
    names = [row.name for row in rows[0]]
    kept = range(LIMIT + beyond) if not beyond else [*range(LIMIT - 1), LIMIT]
    assert names == [str(i) for i in kept]
    assert (f"The {LIMIT} gravest of {LIMIT + 1} cells are drawn." in picture.caption) == (
        beyond == 1
    )


@pytest.mark.parametrize(
    ("changes", "zone"),
    [
        ({"published": "50"}, (45.0, 55.0)),
        ({"published": "2"}, (0.0, 7.0)),
        ({"published": "98"}, (93.0, 100.0)),
        ({"published": "0.5", "unit": "fraction"}, (0.0, 1.0)),
        ({"published": "-50", "unit": "loss"}, (-55.0, -45.0)),
        ({"published": "-50", "unit": "loss", "kind": "relative", "margin": 0.1}, (-55.0, -45.0)),
        ({"published": "50", "kind": "bound"}, None),
        ({"published": "50", "margin": None}, None),
        ({"published": "about 50"}, None),
    ],
)
def test_what_counts_as_equal_to_the_published_number(
    rows: list[list[ForestRow]], changes: dict[str, Any], zone: tuple[float, float] | None
) -> None:
    known = {"t/a": expected_cell("t/a", reference=reference(["1", "2"]))}
    gallery.forests(verdict(cells=[cell("t/a", title="A", **changes)]), known)
    (row,) = rows[0]
    assert row.zone == (pytest.approx(zone) if zone else None)
    assert (row.name, row.interval, row.value) == ("A", (1.0, 5.5), 2.4)


def test_figures_stop_when_the_page_is_full(
    rows: list[list[ForestRow]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "SVG_BYTES", 40)
    cells = [cell(f"t{i}/a", value_interval=Interval(low=1, high=2, level=0.95)) for i in range(4)]
    pictures, remark = gallery.forests(verdict(cells=cells), {})
    assert [len(picture.svg) for picture in pictures] == [27, 27]
    assert remark.startswith("2 further tables")


@pytest.mark.parametrize(
    ("room", "drawn", "left"),
    [(30, 3, ""), (29, 2, "1 further series"), (9, 0, "3 further series")],
)
def test_curves_stop_when_the_page_is_full_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch, room: int, drawn: int, left: str
) -> None:
    monkeypatch.setattr(gallery, "SVG_BYTES", room)
    monkeypatch.setattr(gallery, "drawn", lambda *_: "x" * 10)
    series = [line_of(f"s{i}", {"0": [(0, 1.0)]}) for i in range(3)]
    pictures, remark = gallery.curves(table([], series=series), {})
    assert [picture.title for picture in pictures] == [f"s{i}" for i in range(drawn)]
    assert remark == (f"{left} in results.json." if left else "")
    assert gallery.curves(None, {}) == ([], "")
