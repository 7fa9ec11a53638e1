"""Derived cells follow from their parts, or are invalid."""

from __future__ import annotations

from typing import Any

import pytest

from kit.manifest.expectation_types import Derived, ExpectedCell
from kit.results.types import Canary, Cell
from tests.verify.builders import claim, expected_cell, run, seeded, seeded_shares, share, tolerance

GAP = Derived(formula="gap_closed", cells=["t/none", "t/this", "t/full"])
MOST = Derived(formula="max", cells=["t/ignore", "t/completion"])
RATIO: dict[str, Any] = {"unit": "ratio", "tolerance": tolerance("absolute", margin="0.07")}


def shares(*ids: str) -> list[ExpectedCell]:
    return [expected_cell(f"t/{id}", "5.0") for id in ids]


def gap(value: float, *, stated: str = "0.974", **fields: Any) -> Any:
    """The verdict where 180, 11 and 4 of 208 leave a gap of which 0.960 is closed."""
    cells = [*shares("none", "this", "full"), expected_cell("t/gap", stated, derived=GAP, **RATIO)]
    table = [share("t/none", 180, 208), share("t/this", 11, 208), share("t/full", 4, 208)]
    asked = claim("threshold", cells=["t/gap"], value="0.97", side="at_least")
    return run(cells, [*table, Cell(id="t/gap", unit="ratio", value=value)], [asked], **fields)


def test_the_parts_decide_the_claim() -> None:
    """Short of 0.97, and by how much three rates of 208 items cannot say."""
    verdict = gap(169 / 176)
    assert verdict.cells[3].value == pytest.approx(169 / 176, abs=1e-15)
    assert verdict.claims[0].outcome == "undetermined"
    assert "Fieller" in verdict.claims[0].method


@pytest.mark.parametrize("value", [0.99, 96.02, 0.0, -0.96])
def test_a_value_raised_alone_is_invalid(value: float) -> None:
    """Higher, a percentage under the unit ratio, nothing, the sign turned."""
    verdict = gap(value)
    assert verdict.cells[3].verdict == "invalid"
    assert "contradicts its parts: gap_closed of t/none, t/this, t/full is 0.9602" in (
        verdict.cells[3].detail
    )
    assert verdict.claims[0].outcome == "not-evaluated"
    assert verdict.verdict != "REPRODUCED"


def test_a_maximum_below_its_parts_is_invalid() -> None:
    cells = [*shares("ignore", "completion"), expected_cell("t/max", "0.5", derived=MOST)]
    parts = [share("t/ignore", 40, 208), share("t/completion", 30, 208)]
    for k, verdict in ((0, "invalid"), (30, "invalid"), (41, "invalid"), (40, "deviates")):
        assert run(cells, [*parts, share("t/max", k, 208)]).cells[2].verdict == verdict


def test_each_replicate_is_computed_from_its_own_parts() -> None:
    cells = [
        *shares("ignore", "completion"),
        expected_cell("t/max", "15", derived=MOST, tolerance=None),
    ]
    parts = [seeded_shares("t/ignore", [40, 10], 208), seeded_shares("t/completion", [20, 30], 208)]
    right = run(cells, [*parts, seeded_shares("t/max", [40, 30], 208)]).cells[2]
    assert right.verdict != "invalid"
    assert right.value == pytest.approx(100 * 35 / 208)
    wrong = run(cells, [*parts, seeded_shares("t/max", [30, 40], 208)]).cells[2]  # the same mean
    assert "contradicts its parts" in wrong.detail


def test_a_quoted_part_counts_with_its_printed_value() -> None:
    full = expected_cell("t/full", "0.5", status="quoted", tolerance=None)
    cells = [*shares("none", "this"), full, expected_cell("t/gap", "0.9", derived=GAP, **RATIO)]
    none, this = share("t/none", 144, 208), share("t/this", 5, 208)
    true = (144 - 5) / (144 - 0.005 * 208)
    for value, invalid in ((true, False), (true + 0.01, True)):
        report = run(cells, [none, this, Cell(id="t/gap", unit="ratio", value=value)]).cells[3]
        assert (report.verdict == "invalid") == invalid


def test_without_a_part_the_value_stays() -> None:
    cells = [*shares("none", "this", "full"), expected_cell("t/gap", "0.9", derived=GAP, **RATIO)]
    report = run(cells, [seeded("t/gap", [0.9, 0.91], "ratio")]).cells[3]
    assert report.value == pytest.approx(0.905)
    assert report.verdict != "invalid"


def test_a_formula_that_is_undefined_here_decides_nothing() -> None:
    cells = [*shares("none", "this", "full"), expected_cell("t/gap", "0.9", derived=GAP, **RATIO)]
    table = [share(f"t/{id}", 4, 208) for id in ("none", "this", "full")]
    report = run(cells, [*table, Cell(id="t/gap", unit="ratio", value=0.9)]).cells[3]
    assert report.verdict != "invalid"


@pytest.mark.parametrize(("value", "invalid"), [(0.96, False), (0.9602, False), (0.98, True)])
def test_a_table_by_hand_agrees_within_its_last_digit(value: float, invalid: bool) -> None:
    verdict = gap(value, not_run_here=True)
    assert (verdict.cells[3].verdict == "invalid") == invalid
    if not invalid:
        assert verdict.cells[3].value == value


def test_what_is_computed_from_a_broken_cell_is_broken() -> None:
    cells = [*shares("none", "this", "full"), expected_cell("t/gap", "0.96", derived=GAP, **RATIO)]
    table = [share("t/none", 180, 208), share("t/this", 11, 208), share("t/full", 4, 208)]
    alarm = Canary(id="same-labels", step="s", passed=False, detail="copied", cells=["t/full"])
    asked = claim("threshold", cells=["t/gap"], value="0.5", side="at_least")
    gap = Cell(id="t/gap", unit="ratio", value=169 / 176)
    verdict = run(cells, [*table, gap], [asked], [alarm])
    assert [cell.verdict for cell in verdict.cells[2:]] == ["invalid", "invalid"]
    assert "computed from t/full: canary same-labels failed" in verdict.cells[3].detail
    assert verdict.claims[0].outcome == "not-evaluated"
