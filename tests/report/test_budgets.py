"""What there is room for, line by line, and which lines come first."""

from __future__ import annotations

from typing import Any

import pytest

from kit.report import gallery, tables
from kit.report.cells import SEVERITY, Row
from kit.report.figures.style import inline, label
from kit.report.tables import FACT_BYTES, FOLD_BYTES, LINE_BYTES, Table
from kit.verify.verdict import CellReport, Interval
from tests.report.builders import cell, verdict
from tests.report.test_gallery import rows
from tests.verify.builders import expected_cell, reference

__all__ = ["rows"]  # a fixture


def made(*cells: CellReport, **known: Any) -> list[Row]:
    return [
        line for table in tables.tables(verdict(cells=[*cells]), known, {}) for line in table.rows
    ]


def bytes_of(line: Row) -> int:
    texts = (line.name, line.unit, line.published, line.reference, line.value, line.interval)
    return LINE_BYTES + sum(len(text.encode()) for text in (*texts, line.word))


def bytes_below(line: Row) -> int:
    facts = [text for fact in line.facts for text in fact]
    texts = sum(len(text.encode()) for text in (line.title, line.summary, *facts))
    return FOLD_BYTES + FACT_BYTES * len(line.facts) + texts


PLAIN = {"title": "", "detail": "d", "needed": ""}


@pytest.mark.parametrize(("missing", "kept"), [(0, 2), (1, 1)])
def test_lines_are_kept_as_long_as_they_fit(
    monkeypatch: pytest.MonkeyPatch, missing: int, kept: int
) -> None:
    cells = (cell("t/a", verdict="reproduced"), cell("t/b", verdict="deviates"))
    room = sum(bytes_of(line) for line in made(*cells))
    monkeypatch.setattr(tables, "ROW_BYTES", room - missing)
    (table,) = tables.tables(verdict(cells=[*cells]), {}, {})
    assert [line.name for line in table.rows] == ["a", "b"][2 - kept :]
    assert (table.left_out, table.size) == (2 - kept, "2 cells")


@pytest.mark.parametrize(("missing", "detailed"), [(0, ["b", "c"]), (1, ["b"])])
def test_details_that_do_not_fit_take_no_room(
    monkeypatch: pytest.MonkeyPatch, missing: int, detailed: list[str]
) -> None:
    """The gravest is too long to be shown; the next two fill the room to the last byte."""
    cells = (
        cell("t/a", verdict="invalid", detail="x" * 5000),
        cell("t/b", verdict="deviates"),
        cell("t/c", verdict="reproduced"),
    )
    assert [SEVERITY[c.verdict] for c in cells] == sorted(SEVERITY[c.verdict] for c in cells)
    lines = made(*cells)
    monkeypatch.setattr(tables, "DETAIL_BYTES", sum(map(bytes_below, lines[1:])) - missing)
    (table,) = tables.tables(verdict(cells=[*cells]), {}, {})
    assert [line.name for line in table.rows if line.detailed] == detailed
    assert table.folded == 3 - len(detailed)


def test_the_gravest_lines_keep_the_order_of_the_table() -> None:
    words = ["match", "deviates", "match", "invalid", "inconclusive"]
    (table,) = tables.tables(
        verdict(cells=[cell(f"t/{i}", verdict=word) for i, word in enumerate(words)]), {}, {}
    )
    assert [line.name for line in table.gravest(3)] == ["1", "3", "4"]
    assert [line.name for line in table.gravest(9)] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("known", [0, 1, 2])
def test_a_table_has_the_columns_that_any_line_needs(known: int) -> None:
    cells = [cell(f"t/{i}", published="4.8" if i >= known else None) for i in range(2)]
    expected = {
        f"t/{i}": expected_cell(f"t/{i}", None, status="reference", reference=reference(["4", "9"]))
        for i in range(known)
    }
    (table,) = tables.tables(verdict(cells=cells), expected, {})
    assert isinstance(table, Table)
    assert (table.has_published, table.has_reference) == (known < 2, known > 0)


def test_a_table_is_as_grave_as_its_gravest_cell(
    rows: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "MOST_FORESTS", 1)
    cells = [
        cell("mild/a", verdict="inconclusive"),
        cell("both/a", verdict="match"),
        cell("both/b", verdict="deviates"),
    ]
    pictures, _ = gallery.forests(verdict(cells=cells), {})
    assert [picture.title for picture in pictures] == ["both"]


@pytest.mark.parametrize("known", [0, 1, 2])
def test_a_caption_explains_reference_runs_where_any_row_has_some(
    rows: list[list[Any]], known: int
) -> None:
    expected = {
        f"t/{i}": expected_cell(f"t/{i}", None, status="reference", reference=reference(["4", "9"]))
        for i in range(known)
    }
    ((picture,), _) = gallery.forests(verdict(cells=[cell("t/0"), cell("t/1")]), expected)
    assert ("reference runs" in picture.caption) == (known > 0)


@pytest.mark.parametrize(("more", "drawn"), [(0, 1), (1, 2)])
def test_a_forest_is_drawn_while_there_is_room(
    rows: list[list[Any]], monkeypatch: pytest.MonkeyPatch, more: int, drawn: int
) -> None:
    cells = [cell("a/x"), cell("b/x"), cell("c/x")]
    first = len("<svg>forest-0 percent</svg>")
    monkeypatch.setattr(gallery, "SVG_BYTES", first + more)
    pictures, remark = gallery.forests(verdict(cells=cells), {})
    assert len(pictures) == drawn
    assert remark.startswith(f"{3 - drawn} further table")


@pytest.mark.parametrize(
    ("fields", "zone"),
    [
        ({"published": "50", "margin": 5.0}, (45, 55)),
        ({"published": "3", "margin": 5.0}, (0, 8)),
        ({"published": "98", "margin": 5.0}, (93, 100)),
        ({"published": "-4", "margin": 0.5, "kind": "relative", "unit": "loss"}, (-6, -2)),
        ({"published": "-4", "margin": 0.5, "kind": "absolute", "unit": "loss"}, (-4.5, -3.5)),
        ({"published": "50", "margin": 5.0, "kind": "bound"}, None),
        ({"published": "50", "margin": None}, None),
        ({"published": None, "margin": 5.0}, None),
        ({"published": "none", "margin": 5.0}, None),
    ],
)
def test_the_zone_of_a_row_is_what_counts_as_equal(
    fields: dict[str, Any], zone: tuple[float, float] | None
) -> None:
    made = gallery._forest_row(cell("t/a", **fields), None)
    assert made.zone == zone
    assert made.reference is None
    interval = cell("t/a").value_interval
    assert isinstance(interval, Interval)
    assert made.interval == (interval.low, interval.high)
    assert gallery._forest_row(cell("t/a", value_interval=None), None).interval is None


@pytest.mark.parametrize(("length", "cut"), [(48, False), (49, True)])
def test_a_label_has_its_limit(length: int, cut: bool) -> None:
    shown = label("x" * length)
    assert len(shown) == 48
    assert shown.endswith("\u2026") == cut
    assert shown.startswith("x" * 47)
    assert label("abc", 2) == "a\u2026"


def test_of_a_figure_only_what_is_seen_is_kept() -> None:
    svg = (
        '<?xml version="1.0"?>\n<svg width="7pt" height="3pt" version="1.1" viewBox="0 0 7 3">'
        "<metadata>who\nmade it</metadata><style type=a>*{}</style><!-- note --> \n"
        '<g id="unused"><path id="used" d="M 1.23456 2.5"/></g><text>a &lt; b</text>'
        '<use xlink:href="#used" x="3.14159"/></svg>'
    )
    assert inline(svg) == (
        '<svg viewBox="0 0 7 3" aria-hidden="true" focusable="false">'
        '<g><path id="used" d="M 1.23 2.5"/></g><text>a &lt; b</text>'
        '<use href="#used" x="3.14"/></svg>'
    )
