"""Rules over single cells, on cells that are made for them: what fires, and at which edge."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.lint import cells as rules
from kit.lint import claims, tolerances
from kit.manifest.expectation_types import Derived
from tests.verify.builders import claim, expectation, expected_cell, tolerance


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
        ([("all/x", True), ("g/x", False)], []),
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

FRACTIONS, LOSSES = (
    expected_cell("t/a", None, unit=unit, series=[["0", "1"]], tolerance=None)
    for unit in ("fraction", "loss")
)


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
        ([FRACTIONS, asked("first-above:1", unit="count")], []),
        ([FRACTIONS, asked("first-above:1.5", unit="count")], [(1, "id")]),
        ([LOSSES, asked("first-above:1.5", unit="count")], []),
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


@pytest.mark.parametrize(
    ("value", "fits"),
    [("4.3", False), ("4.4", True), ("5", True), ("5.6", True), ("5.7", False)],
)
def test_a_derived_number_may_touch_what_rounding_allows(value: str, fits: bool) -> None:
    """10 and 5.0 as printed are 9.5 to 10.5 and 4.95 to 5.05: the difference is 4.45 to 5.55."""
    whole = expected_cell("t/a", "10", unit="number", tolerance=None)
    less = expected_cell("t/b", "5.0", unit="number", tolerance=None)
    derived = Derived(formula="difference", cells=["t/a", "t/b"])
    made = expected_cell("t/c", value, unit="number", derived=derived, tolerance=None)
    assert (said(rules.derived, whole, less, made) == []) is fits


def of_claims(rule: Any, claims: list[Any], *cells: Any) -> list[tuple[Any, ...]]:
    by_id = {cell.id: cell for cell in cells}
    made = expectation(list(cells), claims)
    context = SimpleNamespace(expectation=made, cells=lambda: by_id)
    return [hit.path for hit in rule(context)]


@pytest.mark.parametrize(
    ("kind", "units", "warned"),
    [
        ("ratio", ("seconds", "minutes"), False),
        ("ratio", ("seconds", "seconds"), False),
        ("ratio", ("seconds", "percent"), True),
        ("order", ("seconds", "minutes"), True),
        ("order", ("percent", "percent"), False),
        ("order", ("percent", "fraction"), True),
    ],
)
def test_a_claim_compares_numbers_of_one_unit_or_times_by_their_ratio(
    kind: str, units: tuple[str, str], warned: bool
) -> None:
    cells = [
        expected_cell(f"t/{name}", "1", unit=unit, tolerance=None)
        for name, unit in zip("ab", units, strict=True)
    ]
    made = claim(kind, cells=["t/a", "t/b"])
    assert of_claims(claims.claim_cells, [made], *cells) == ([("claims", 0)] if warned else [])


@pytest.mark.parametrize(
    ("primary", "more", "wrong"),
    [(0, 0, True), (0, 5, True), (1, 0, False), (1, 30, False), (15, 0, False), (16, 0, True)],
)
def test_one_to_fifteen_claims_decide(primary: int, more: int, wrong: bool) -> None:
    made = [claim("order", id=f"c{i}", primary=i < primary) for i in range(primary + more)]
    assert of_claims(claims.primary_claims, made) == ([("claims",)] if wrong else [])


@pytest.mark.parametrize(
    ("listed", "used", "hit"),
    [
        ("t/a", "t/a", True),
        ("t/a", "t/a:max", True),
        ("t/a:max", "t/a:max", True),
        ("t/a", "t/b", False),
    ],
)
def test_a_claim_rests_on_the_cell_or_on_the_curve_that_is_asked(
    listed: str, used: str, hit: bool
) -> None:
    cells = [expected_cell(listed, None, status="running", tolerance=None)]
    made = claim("order", cells=[used])
    assert bool(of_claims(claims.rests_on_unmeasured, [made], *cells)) is hit
    measured = [expected_cell(listed, "1", tolerance=None)]
    assert of_claims(claims.rests_on_unmeasured, [made], *measured) == []


def ruled(kind: str, unit: str = "percent", **fields: Any) -> Any:
    rule = tolerance(kind, margin="1")
    given = {"value": "50", "unit": unit, "n": 10, "tolerance": rule} | fields
    return expected_cell("t/a", **given)


RATIO = Derived(formula="ratio", cells=["t/b", "t/c"])
DIFFERENCE = Derived(formula="difference", cells=["t/b", "t/c"])


@pytest.mark.parametrize(
    ("made", "hits"),
    [
        (ruled("binomial"), 0),
        (ruled("binomial", "fraction"), 0),
        (ruled("binomial", n=None), 1),
        (ruled("binomial", "loss"), 1),
        (ruled("binomial", "ratio", n=None, derived=RATIO), 0),
        (ruled("binomial", "percent", n=None, derived=DIFFERENCE), 1),
        (ruled("flip", "ratio", n=None, derived=RATIO), 1),
        (ruled("paired", labels="l"), 0),
        (ruled("paired"), 1),
        (ruled("relative"), 1),
        (ruled("relative", "fraction"), 1),
        (ruled("relative", "seconds", n=None), 0),
        (ruled("absolute", "loss", n=None), 0),
        (ruled("trajectory"), 1),
        (ruled("trajectory", value=None, series=[["0", "1"]]), 0),
        (ruled("absolute", series=[["0", "1"]]), 1),
    ],
)
def test_a_tolerance_suits_what_is_measured(made: Any, hits: int) -> None:
    by_id = {made.id: made}
    source = SimpleNamespace(path=Path("x.yaml"), node=lambda path: None)
    context: Any = SimpleNamespace(
        expectation=expectation([made]),
        loaded=SimpleNamespace(source=source),
        cells=lambda: by_id,
    )
    assert len(list(tolerances.tolerance_fits(context))) == hits


POINTS = SimpleNamespace(cells="b/*/x", upward=None)


def drawn(kind: str, *cells: str, lines: Any = (), published: Any = None) -> Any:
    return SimpleNamespace(kind=kind, cells=cells, lines=lines, published=published)


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        (drawn("grid", "*/a@*"), ""),
        (drawn("grid"), "grid needs 1 of these, not 0"),
        (drawn("grid", "*/a@*", "*/b@*"), "grid needs 1 of these, not 2"),
        (drawn("grid", "*/a"), "not 1"),
        (drawn("grid", "*/*/*"), "not 3"),
        (drawn("grid", "*/a@*", lines=["x"]), "only they"),
        (drawn("trade-off", "a/*", "b/*"), ""),
        (drawn("trade-off", "a/*"), "trade-off needs 2 of these, not 1"),
        (drawn("trade-off", "a/*", "b/*", "c/*"), "trade-off needs 2 of these, not 3"),
        (drawn("trade-off", "a/*", "*/*"), "the same number of *"),
        (drawn("trade-off", "a", "b"), "at least one"),
        (drawn("steps", lines=["x"]), ""),
        (drawn("steps"), "only they"),
        (drawn("steps", "a", lines=["x"]), "steps needs 0 of these, not 1"),
        (drawn("grid", "*/a@*", published=POINTS), ""),
        (drawn("trade-off", "a/*", "b/*", published=POINTS), "say what is drawn upwards"),
    ],
)
def test_a_figure_has_the_patterns_of_its_kind(figure: Any, said: str) -> None:
    message = claims._shape(figure)
    assert said in message
    assert bool(message) is bool(said)
