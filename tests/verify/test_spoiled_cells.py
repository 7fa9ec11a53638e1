"""Cells that are computed from others, and what becomes of them when one of those is spoiled."""

from __future__ import annotations

from typing import Any

import pytest

from kit.errors import Many
from kit.manifest.expectation_types import Derived
from kit.results.types import Canary, Cell
from kit.verify.core import Subject, units_of, verify
from kit.verify.verdict import Verdict
from tests.verify.builders import (
    claim,
    expectation,
    expected_cell,
    line_of,
    run,
    table,
    tolerance,
    trajectory_cell,
)

RULE = tolerance("absolute", margin="1")
DIFFERENCE = expected_cell(
    "t/d", "4", unit="loss", tolerance=RULE,
    derived=Derived(formula="difference", cells=["t/a", "t/b"]),
)  # fmt: skip
PARTS = [
    expected_cell(id, value, unit="loss", tolerance=RULE)
    for id, value in (("t/a", "7"), ("t/b", "3"))
]


def plain(id: str, value: float) -> Cell:
    return Cell(id=id, unit="loss", value=value)


def found(*cells: Cell, listed: bool = True, spoiled: str = "", **fields: Any) -> Verdict:
    canaries = [Canary(id="moved", step="s", passed=False, detail="still", cells=[spoiled])]
    expected = [*(PARTS if listed else ()), DIFFERENCE]
    return run(expected, cells, canaries=canaries if spoiled else (), **fields)


WHOLE = [plain("t/a", 7.25), plain("t/b", 3.0), plain("t/d", 4.25)]


def test_what_is_computed_from_whole_cells_is_compared() -> None:
    assert [cell.verdict for cell in found(*WHOLE).cells] == ["match"] * 3


@pytest.mark.parametrize("spoiled", ["t/a", "t/b"])
def test_what_is_computed_from_a_spoiled_cell_is_spoiled(spoiled: str) -> None:
    reports = {cell.id: cell for cell in found(*WHOLE, spoiled=spoiled).cells}
    other = "t/b" if spoiled == "t/a" else "t/a"
    assert reports[other].verdict == "match"
    for id in (spoiled, "t/d"):
        assert reports[id].verdict == "invalid"
    assert reports["t/d"].detail == f"computed from {spoiled}: canary moved failed: still"


def test_a_part_is_not_spoiled_by_what_is_computed_from_it() -> None:
    reports = found(*WHOLE, spoiled="t/d").cells
    assert [cell.verdict for cell in reports] == ["match", "match", "invalid"]
    assert reports[2].detail == "canary moved failed: still"


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("value", [4.25, 4.0])
def test_what_contradicts_its_parts_is_invalid_whether_they_are_listed_or_not(
    listed: bool, value: float
) -> None:
    report = found(*WHOLE[:2], plain("t/d", value), listed=listed).cells[-1]
    assert (report.verdict == "invalid") == (value != 4.25)


def test_units_of_what_claims_ask_of_curves() -> None:
    """Of the curve's own unit at its end, of x where it crosses."""
    cells = [expected_cell("t/a", None, unit="loss"), expected_cell("t/a:max", "2", unit="count")]
    asks = ["t/a:end", "t/a:first-above:1.5", "t/a:max"]
    made = claim("order", cells=[*asks, "t/a"])
    known = units_of(expectation(cells, [made]))
    assert known["t/a"] == known["t/a:end"] == "loss"
    assert known["t/a:max"] == "count"
    assert known["t/a:first-above:1.5"] != "loss"
    assert set(known) == {"t/a", *asks}


def test_a_claim_about_a_curve_is_decided_by_its_answers() -> None:
    rule = tolerance("trajectory", margin="1")
    expected = expected_cell("t/a", None, unit="loss", tolerance=rule,
                             series=[["0", "1"], ["1", "2"]])  # fmt: skip
    low = claim("threshold", cells=["t/a:end"], value="5", side="at_most")
    series = [line_of("t/a", {str(i): [(0.0, 1.0), (1.0, 2.0 + i / 10)] for i in range(3)})]
    verdict = verify(
        Subject(
            expected=expectation([expected], [low]),
            results=table([trajectory_cell("t/a")], series=series),
        )
    )
    assert verdict.claims[0].outcome == "holds"
    assert "2.1" in verdict.claims[0].tested


def test_all_faults_of_a_table_are_said_together() -> None:
    doubled = [plain("t/a", 1.0), plain("t/a", 1.0)]
    with pytest.raises(Many) as caught:
        verify(Subject(expected=expectation([PARTS[0], PARTS[0]]), results=table(doubled)))
    assert len(caught.value.errors) == 2
