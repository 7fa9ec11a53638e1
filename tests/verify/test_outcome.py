"""Run verdicts, exit codes, marks, omnibus lines."""

from __future__ import annotations

import pytest

from kit.manifest.expectation_types import ExpectedCell
from kit.results.types import Cell
from kit.verify.render import lines
from kit.verify.verdict import Verdict
from tests.verify.builders import claim, expected_cell, run, share


def low(id: str, value: str, primary: bool = True) -> object:
    return claim("threshold", id=id, cells=["t/a"], value=value, side="at_most", primary=primary)


def with_claims(*claims: object, k: int = 10, **fields: object) -> Verdict:
    return run([expected_cell(n=208)], [share("t/a", k, 208)], claims, **fields)  # type: ignore[arg-type]


def test_reproduced() -> None:
    verdict = with_claims(low("c1", "20"))
    assert (verdict.verdict, verdict.exit_code) == ("REPRODUCED", 0)


def test_not_reproduced_whatever_else_holds() -> None:
    verdict = with_claims(low("c1", "20"), low("c2", "1"))
    assert (verdict.verdict, verdict.exit_code) == ("NOT REPRODUCED", 1)
    assert "fails: c2" in verdict.reasons


def test_partially_and_incomplete() -> None:
    both = with_claims(low("c1", "20"), low("c2", "6"))
    assert (both.verdict, both.exit_code) == ("PARTIALLY", 3)
    none = with_claims(low("c2", "6"))
    assert (none.verdict, none.exit_code) == ("INCOMPLETE", 3)


def test_a_secondary_claim_decides_nothing() -> None:
    assert with_claims(low("c1", "20"), low("c2", "1", primary=False)).verdict == "REPRODUCED"


def test_a_missing_cell_keeps_a_run_from_being_whole() -> None:
    cells = [expected_cell(n=208), expected_cell("t/b", n=208)]
    verdict = run(cells, [share("t/a", 10, 208)], [low("c1", "20")])  # type: ignore[list-item]
    assert verdict.verdict == "PARTIALLY"
    assert verdict.cells[1].verdict == "missing"


def test_deliberately_not_run_does_not() -> None:
    cells = [expected_cell(n=208), expected_cell("t/b", n=208)]
    skipped = Cell(id="t/b", unit="percent", not_run="gated model")
    verdict = run(cells, [share("t/a", 10, 208), skipped], [low("c1", "20")])  # type: ignore[list-item]
    assert verdict.verdict == "REPRODUCED"
    assert verdict.not_covered == ["cell t/b: not-run (gated model)"]


@pytest.mark.parametrize("status", ["running", "diverged", "cancelled"])
def test_what_the_document_left_open_is_no_failure(status: str) -> None:
    open_ = ExpectedCell(id="t/b", status=status, unit="percent", place="doc")  # type: ignore[arg-type]
    verdict = run([expected_cell(n=208), open_], [share("t/a", 10, 208), share("t/b", 1, 208)],
                  [low("c1", "20")])  # type: ignore[list-item]  # fmt: skip
    assert verdict.verdict == "REPRODUCED"
    assert verdict.cells[1].verdict == "not-compared"
    assert status in verdict.cells[1].detail


def test_rehearsal_is_never_reproduced() -> None:
    verdict = with_claims(low("c1", "20"), rehearsal=True)
    assert (verdict.verdict, verdict.exit_code) == ("REHEARSED", 0)


def test_overrides_are_marked() -> None:
    verdict = with_claims(low("c1", "20"), overrides=["train.lr=0.2"])
    assert verdict.modified
    assert list(lines(verdict))[-1].startswith("verdict REPRODUCED (modified) (")


def test_without_primary_claims_the_cells_decide() -> None:
    assert with_claims().verdict == "REPRODUCED"
    assert with_claims(k=60).verdict == "NOT REPRODUCED"
    assert run([expected_cell(n=208)], []).verdict == "INCOMPLETE"


def test_cells_that_were_not_run_leave_it_open_where_cells_decide() -> None:
    cells = [expected_cell(f"t/{i}", n=208) for i in range(10)]
    skipped = [Cell(id=f"t/{i}", unit="percent", not_run="no time") for i in range(1, 10)]
    verdict = run(cells, [share("t/0", 10, 208), *skipped])
    assert (verdict.verdict, verdict.exit_code) == ("PARTIALLY", 3)
    assert "9 not run: t/1, t/2, t/3, t/4, t/5 and 4 more" in verdict.reasons


def test_omnibus_counts_against_chance() -> None:
    cells = [expected_cell(f"t/c{i}", "50.0", n=208) for i in range(20)]
    table = [share(f"t/c{i}", 75 if i < 7 else 104, 208) for i in range(20)]
    line = run(cells, table).omnibus[0]
    assert (line.tested, line.differing, line.chance, line.exceeds) == (20, 7, 4, True)
    assert line.sentence.startswith("7 of 20 differ, up to 4 expected by chance (99 %)")
    assert line.mean_z is not None
    assert line.mean_z < -0.5


def test_q_is_at_least_p_and_z_has_the_sign_of_the_difference() -> None:
    cells = [expected_cell(f"t/c{i}", "50.0", n=208) for i in range(5)]
    verdict = run(cells, [share(f"t/c{i}", 80 + 10 * i, 208) for i in range(5)])
    for cell in verdict.cells:
        assert cell.p is not None
        assert cell.q is not None
        assert cell.z is not None
        assert cell.difference is not None
        assert cell.q >= cell.p
        assert cell.z * cell.difference >= 0


@pytest.mark.parametrize(("off", "flagged"), [(4, True), (3, False)])
def test_a_metric_that_moves_alone_has_a_line(off: int, flagged: bool) -> None:
    """4 of 15 are more than chance explains; among 65 cells of the table they are not."""
    ids = [f"t/asr/{i}" for i in range(15)] + [f"t/accuracy/{i}" for i in range(50)]
    cells = [expected_cell(id, "4.8", n=208) for id in ids]
    made = [share(id, 60 if i < off else 10, 208) for i, id in enumerate(ids)]
    verdict = run(cells, made)
    assert [line.table for line in verdict.omnibus] == (["t", "t/asr"] if flagged else ["t"])
    assert not verdict.omnibus[0].exceeds
    said = [reason for reason in verdict.reasons if "t/asr: 4 of 15 differ" in reason]
    assert bool(said) == flagged


def test_a_metric_of_few_cells_has_no_line() -> None:
    ids = [f"t/asr/{i}" for i in range(9)] + [f"t/accuracy/{i}" for i in range(60)]
    made = [share(id, 60 if i < 4 else 10, 208) for i, id in enumerate(ids)]
    verdict = run([expected_cell(id, "4.8", n=208) for id in ids], made)
    assert [line.table for line in verdict.omnibus] == ["t"]


@pytest.mark.parametrize(("many", "flagged"), [(9, False), (10, True), (11, True)])
def test_a_metric_has_a_line_from_ten_cells_on(many: int, flagged: bool) -> None:
    ids = [f"t/asr/{i}" for i in range(many)] + [f"t/accuracy/{i}" for i in range(200)]
    made = [share(id, 60 if i < 5 else 10, 208) for i, id in enumerate(ids)]
    verdict = run([expected_cell(id, "4.8", n=208) for id in ids], made)
    assert [line.table for line in verdict.omnibus] == (["t", "t/asr"] if flagged else ["t"])
