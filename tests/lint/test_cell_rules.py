"""Rules over single cells, on cells that are made for them: what fires, and at which edge."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.lint import cells as rules
from kit.lint import tolerances
from tests.verify.builders import expectation, expected_cell


def said(rule: Any, *cells: Any, folder: Path = Path(), record: str = "") -> list[tuple[Any, ...]]:
    source = SimpleNamespace(path=folder / "x.yaml", node=lambda path: None)
    made = expectation(list(cells), record=record)
    by_id = {cell.id: cell for cell in cells}
    loaded = SimpleNamespace(source=source)
    context = SimpleNamespace(expectation=made, loaded=loaded, cells=lambda: by_id)
    return [(hit.path[1:], hit.level) for hit in rule(context)]


def cell(value: str | None = "50", **fields: Any) -> Any:
    return expected_cell("t/a", value, **({"n": 10, "tolerance": None} | fields))


@pytest.mark.parametrize(
    ("made", "hits"),
    [
        (cell(), []),
        (cell("0"), []),
        (cell("100"), []),
        (cell("0.4", n=None), []),
        (cell("-0.1", n=None), [((0, "value"), None)]),
        (cell("100.1", n=None), [((0, "value"), None)]),
        (cell("1", unit="fraction"), []),
        (cell("1.1", unit="fraction"), [((0, "value"), None)]),
        (cell("-7", unit="loss", n=None), []),
        (cell(k=10), []),
        (cell(k=11), [((0, "k"), None)]),
        (cell(k=5, n=None), [((0, "k"), None)]),
        (cell(None, k=0), []),
    ],
)
def test_a_share_lies_between_nothing_and_all(made: Any, hits: list[Any]) -> None:
    assert said(rules.impossible, made) == hits


@pytest.mark.parametrize(
    ("made", "hits"),
    [
        (cell("50"), []),
        (cell("55"), [((0, "value"), "error")]),
        (cell("0.5"), [((0, "value"), "error")]),
        (cell("0"), []),
        (cell("100"), []),
        (cell("101"), []),
        (cell("0.5", unit="fraction"), []),
        (cell("0.55", unit="fraction"), [((0, "value"), "error")]),
        (cell("50", k=5), []),
        (cell("50", k=4), [((0, "value"), "error")]),
        (cell("55", note="GRIM: as printed"), [((0, "value"), "warning")]),
        (cell("55", note="as printed"), [((0, "value"), "error")]),
        (cell("55", n=None), []),
        (cell("55", status="reference"), []),
        (cell("55", unit="loss"), []),
    ],
)
def test_a_printed_share_is_of_whole_items(made: Any, hits: list[Any]) -> None:
    assert said(rules.grim, made) == hits


@pytest.mark.parametrize(
    ("made", "hits"),
    [
        (cell(), []),
        (cell(n=None), [((0,), None)]),
        (cell(n=None, unit="fraction"), [((0,), None)]),
        (cell(n=None, unit="loss"), []),
        (cell(None, n=None), []),
        (cell(n=None, note="n: a mean of means"), [((0,), "info")]),
    ],
)
def test_a_share_says_of_how_many(made: Any, hits: list[Any]) -> None:
    assert said(rules.items, made) == hits


@pytest.mark.parametrize(
    ("made", "hits"),
    [
        (cell(), []),
        (cell(None), [((0,), None)]),
        (cell(None, status="quoted"), [((0,), None)]),
        (cell(None, status="reference"), []),
        (cell(None, status="running"), []),
        (cell(None, series=[["0", "1"]]), []),
    ],
)
def test_a_reported_cell_has_its_number(made: Any, hits: list[Any]) -> None:
    assert said(rules.value, made) == hits


@pytest.mark.parametrize(
    ("recorded", "hits"),
    [
        ([("all/x", True), ("all/y", True)], [((0,), None)]),
        ([("all/x", True), ("stats/g/x", False)], [((0,), None)]),
        ([("all/x", True), ("g/x", False), ("h/x", False)], []),
        ([("all/x", False)], []),
        ([("g/x", True)], [((1,), None)]),
        ([("other/x", True)], []),
    ],
)
def test_labels_of_reference_runs_are_asked_of_every_run(
    tmp_path: Path, recorded: list[tuple[str, bool]], hits: list[Any]
) -> None:
    """But those pooled over groups, whose own labels they are."""
    lines = [{"id": id, "value": 1.0, "labels": "l" if kept else None} for id, kept in recorded]
    text = "\n".join(json.dumps(line) for line in [{"run": "r"}, *lines])
    (tmp_path / "r.jsonl").write_text(text)
    made = [expected_cell(id, "1") for id in ("all/x", "g/x", "h/x")]
    found = said(rules.labels_declared, *made, folder=tmp_path, record="r.jsonl")
    assert found == hits
    assert said(rules.labels_declared, *made, folder=tmp_path) == []


CURVE = expected_cell("t/a", None, series=[["0", "1"], ["1", "2"]], tolerance=None)


def asked(question: str, **fields: Any) -> Any:
    return expected_cell(f"t/a:{question}", "1", **({"tolerance": None} | fields))


@pytest.mark.parametrize(
    ("made", "hits"),
    [
        ([CURVE, asked("max")], []),
        ([CURVE, asked("max", unit="loss")], [(1, "unit")]),
        ([CURVE, asked("first-above:50", unit="count")], []),
        ([CURVE, asked("first-above:50")], [(1, "unit")]),
        ([CURVE, asked("first-above:0", unit="count")], []),
        ([CURVE, asked("first-above:100", unit="count")], []),
        ([CURVE, asked("first-above:101", unit="count")], [(1, "id")]),
        ([CURVE, asked("first-below:-1", unit="count")], [(1, "id")]),
        ([CURVE, asked("max", series=[["0", "1"]])], [(1, "series")]),
        ([cell("50"), asked("max")], [(1, "id")]),
        ([cell(None, status="reference"), asked("max")], []),
        ([asked("max")], []),
        ([cell("50", runs=2)], [(0, "runs")]),
        ([cell("50", runs=1)], []),
        ([expected_cell("t/a", None, series=[["0", "1"]], runs=2, tolerance=None)], []),
    ],
)
def test_what_is_asked_of_a_curve_has_an_answer(made: list[Any], hits: list[Any]) -> None:
    assert [path for path, _ in said(tolerances.trajectory_question, *made)] == hits


@pytest.mark.parametrize(
    ("series", "hits"),
    [
        ([["0", "1"], ["1", "1"]], []),
        ([["0", "1"], ["0", "2"]], [(0, "series", 1)]),
        ([["1", "1"], ["0", "2"], ["2", "3"]], [(0, "series", 1)]),
        ([["0", "1"], ["1"], ["0", "1"]], [(0, "series", 1)]),
        ([["0", "1", "2"]], [(0, "series", 0)]),
    ],
)
def test_points_of_a_series_rise(series: list[list[str]], hits: list[Any]) -> None:
    made = expected_cell("t/a", None, series=series, tolerance=None)
    assert [path for path, _ in said(tolerances.series_points, made)] == hits
