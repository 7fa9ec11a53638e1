"""The kind ``trajectory``, and cells and claims that ask something of a curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import structs
from scipy import stats

from kit.errors import KitError
from kit.manifest.expectation_types import Claim, ExpectedCell
from kit.manifest.reference_record import measured
from kit.results.asks import with_answers
from kit.results.types import Canary, Cell, Results, Series
from kit.verify.core import Subject, verify
from kit.verify.selftest import selftest
from kit.verify.verdict import CellReport, ClaimReport, Verdict
from tests.verify.builders import (
    claim,
    expectation,
    expected_cell,
    line_of,
    one_curve,
    table,
    tolerance,
    trajectory_cell,
)

Points = Sequence[tuple[float, ...]]


def published(*ys: str, margin: str = "0.1", **fields: Any) -> ExpectedCell:
    """A published curve at 0, 10, 20, ..."""
    rule = tolerance("trajectory", margin=margin, **fields.pop("rule", {}))
    series = [[str(10 * i), y] for i, y in enumerate(ys)]
    defaults: dict[str, Any] = {"value": None, "unit": "loss", "tolerance": rule, "series": series}
    return expected_cell(**(defaults | fields))


def seeds(*curves: Sequence[float]) -> dict[str, Points]:
    return {str(i): [(10.0 * j, y) for j, y in enumerate(ys)] for i, ys in enumerate(curves)}


def judge(cell: ExpectedCell, *curves: Sequence[float]) -> CellReport:
    return one_curve(cell, seeds(*curves), cell.unit)


NOISE = np.random.default_rng(3).normal(0, 0.02, (5, 3))


def noisy(*ys: float, count: int = 5) -> list[list[float]]:
    return [[float(v) for v in np.array(ys) + NOISE[i, : len(ys)]] for i in range(count)]


def test_seeds_give_four_outcomes() -> None:
    cell = published("2.000", "1.500", "1.200", margin="0.2")
    assert judge(cell, *noisy(2.0, 1.5, 1.2)).verdict == "reproduced"
    assert judge(cell, *noisy(2.0, 1.9, 1.2)).verdict == "deviates"
    open_ = judge(published("2.000", "1.500", "1.200", margin="0.01"), *noisy(2.0, 1.5, 1.2))
    assert open_.verdict == "inconclusive"
    assert open_.needed == "more seeds, or more items"
    assert "5 seeds" in open_.detail


def test_the_interval_at_the_worst_point_is_scipys() -> None:
    curves = noisy(2.0, 1.6, 1.2)
    report = judge(published("2.000", "1.500", "1.200"), *curves)
    ys = [ys[1] for ys in curves]
    error = np.std(ys, ddof=1) * np.sqrt(1 / 5 + 1)
    low, high = stats.t.interval(0.90, 4, loc=np.mean(ys) - 1.5, scale=error)
    assert report.interval_equivalence is not None
    assert report.interval_equivalence.low == pytest.approx(low - 0.0005, rel=1e-9)
    assert report.interval_equivalence.high == pytest.approx(high + 0.0005, rel=1e-9)
    many = judge(structs.replace(published("2.000", "1.500", "1.200"), runs=5), *curves)
    assert many.interval_equivalence is not None
    width = many.interval_equivalence.high - many.interval_equivalence.low
    assert width < report.interval_equivalence.high - report.interval_equivalence.low


def test_a_drift_that_every_point_hides() -> None:
    spread = [[y + d for y in (2.04, 1.54, 1.24)] for d in (-0.004, -0.002, 0.0, 0.002, 0.004)]
    cell = published("2.000", "1.500", "1.200")
    assert judge(cell, *spread).verdict == "reproduced"
    drifting = published("2.000", "1.500", "1.200", rule={"drift": "0.02"})
    assert judge(drifting, *spread).verdict == "deviates"
    assert "shown" in judge(drifting, *spread).detail


def test_proportions_of_a_single_run_have_score_intervals() -> None:
    cell = published("50.0", "25.0", margin="20", unit="percent", n=200)

    def run(*counts: int) -> CellReport:
        points = [(10.0 * i, k / 2, k, 200) for i, k in enumerate(counts)]
        return one_curve(cell, {"": points}, "percent")

    assert run(104, 49).verdict == "reproduced"
    assert run(104, 120).verdict == "deviates"
    small = published("50", "25", margin="5", unit="percent", n=20)
    points = [(0.0, 50.0, 10, 20), (10.0, 30.0, 6, 20)]
    assert one_curve(small, {"": points}, "percent").verdict == "inconclusive"
    other = one_curve(
        structs.replace(cell, n=100), {"": [(0, 50.0, 100, 200), (10, 25.0)]}, "percent"
    )
    assert other.verdict == "invalid"
    assert "rests on 100 items" in other.detail


def test_false_alarms_of_a_true_curve() -> None:
    """Five seeds against one published run of the same truth: at most 5 % deviate."""
    random, wrong, trials = np.random.default_rng(11), 0, 400
    for _ in range(trials):
        truth = [2.0, 1.5, 1.2, 1.1]
        said = [f"{y:.6f}" for y in truth + random.normal(0, 0.05, 4)]
        curves = [list(map(float, truth + random.normal(0, 0.05, 4))) for _ in range(5)]
        wrong += judge(published(*said, margin="0.01"), *curves).verdict == "deviates"
    assert wrong / trials <= 0.055


def test_a_truth_one_margin_away_at_a_point_is_not_called_equal() -> None:
    random, wrong, trials = np.random.default_rng(12), 0, 400
    for _ in range(trials):
        truth = np.array([2.0, 1.5, 1.2])
        said = [f"{y:.6f}" for y in truth + random.normal(0, 0.02, 3)]
        moved = truth + np.array([0.0, 0.2, 0.0])
        curves = [list(map(float, moved + random.normal(0, 0.02, 3))) for _ in range(5)]
        cell = published(*said, margin="0.2", rule={"drift": "1"})
        wrong += judge(cell, *curves).verdict in ("reproduced", "match")
    assert wrong / trials <= 0.06


def test_false_alarms_of_the_proportions_of_a_single_run() -> None:
    random, wrong, trials = np.random.default_rng(13), 0, 400
    for _ in range(trials):
        shares = (0.5, 0.3, 0.02, 0.0)
        said = [f"{100 * random.binomial(200, p) / 200:.1f}" for p in shares]
        counts = [int(random.binomial(200, p)) for p in shares]
        points = [(10.0 * i, k / 2, k, 200) for i, k in enumerate(counts)]
        cell = published(*said, margin="1", unit="percent", n=200)
        wrong += one_curve(cell, {"": points}, "percent").verdict == "deviates"
    assert wrong / trials <= 0.055


def test_points_that_some_curve_lacks_are_named() -> None:
    report = one_curve(
        published("2.0", "1.5"), {"a": [(0, 2.0), (10, 1.5)], "b": [(0, 2.0)]}, "loss"
    )
    assert (report.verdict, "no point at x = 10" in report.detail) == ("invalid", True)


def test_a_cell_without_its_curve_is_missing() -> None:
    cell = published("2.0")
    made = table([Cell(id="t/a", unit="loss", value=2.0)])
    report = verify(Subject(expected=expectation([cell]), results=made)).cells[0]
    assert report.verdict == "missing"
    assert verify(Subject(expected=expectation([cell]), results=table([]))).cells[0].verdict == (
        "missing"
    )


# -- what is asked


def under(name: str, curves: Mapping[str, Points], unit: str = "percent") -> tuple[Cell, Series]:
    return trajectory_cell(name, unit), line_of(name, curves, unit)


def tables(*made: tuple[Cell, Series], **fields: Any) -> Results:
    return table([cell for cell, _ in made], series=[series for _, series in made], **fields)


def listed(*names: str) -> list[ExpectedCell]:
    return [
        ExpectedCell(id=name, unit="percent", status="unreported", place="doc") for name in names
    ]


def ask(made: Claim, *curves: tuple[Cell, Series]) -> ClaimReport:
    cells = listed(*(cell.id for cell, _ in curves))
    subject = Subject(expected=expectation(cells, [made]), results=tables(*curves))
    return verify(subject).claims[0]


def rising(*tops: float) -> dict[str, Points]:
    return {str(i): [(0, 25.0), (50, top), (100, top - 5)] for i, top in enumerate(tops)}


WEAK = under("t/weak", rising(80, 85, 90, 85, 95))
STRONG = under("t/strong", rising(30, 35, 28, 40, 33))


def test_claims_over_the_maximum_are_paired_by_seed() -> None:
    found = ask(claim("order", cells=["t/strong:max", "t/weak:max"]), WEAK, STRONG)
    assert found.outcome == "holds"
    assert found.method == "5 paired seeds, one-sided t"
    gap = np.array([80, 85, 90, 85, 95]) - np.array([30, 35, 28, 40, 33])
    assert found.p == pytest.approx(stats.ttest_1samp(gap, 0, alternative="greater").pvalue)


@pytest.mark.parametrize(
    ("made", "outcome"),
    [
        (claim("threshold", cells=["t/strong:end"], value="45", side="at_most"), "holds"),
        (claim("threshold", cells=["t/weak:end"], value="45", side="at_most"), "fails"),
        (claim("direction", pairs=[["t/weak:max", "t/strong:max"]], side="at_most"), "holds"),
        (
            claim("ratio", cells=["t/strong:area", "t/weak:area"], value="0.7", side="at_most"),
            "holds",
        ),
        (claim("within", cells=["t/strong:end", "t/weak:end"], margin="10", reason="r"), "fails"),
        (claim("order", cells=["t/strong:min", "t/weak:min"]), "undetermined"),
    ],
)  # fmt: skip
def test_every_kind_of_claim_can_ask(made: Claim, outcome: str) -> None:
    assert ask(made, WEAK, STRONG).outcome == outcome


def test_a_crossing_that_never_happens_is_later() -> None:
    found = ask(
        claim("order", cells=["t/weak:first-above:50", "t/strong:first-above:50"]), WEAK, STRONG
    )
    assert (found.outcome, found.p) == ("holds", 1 / 32)
    assert "not within 100 in 5 of 5 seeds" in found.estimate
    assert "exact sign test over 5 paired seeds" in found.method
    for made in (
        claim("threshold", cells=["t/strong:first-above:50"], value="90", side="at_least"),
        claim("within", cells=["t/weak:first-above:50", "t/strong:first-above:50"], side="at_most",
              margin="1", reason="r"),
        claim("ratio", cells=["t/strong:first-above:50", "t/weak:first-above:50"], value="1.5",
              side="at_least"),
    ):  # fmt: skip
        assert ask(made, WEAK, STRONG).outcome == "holds", made.kind


def test_two_seeds_cannot_show_an_order_of_crossings() -> None:
    weak, strong = under("t/weak", rising(80, 85)), under("t/strong", rising(30, 35))
    made = claim("order", cells=["t/weak:first-above:50", "t/strong:first-above:50"])
    assert ask(made, weak, strong).outcome == "undetermined"


def test_a_single_curve_leaves_its_maximum_open() -> None:
    alone = under("t/weak", {"": [(0, 25.0, 5, 20), (50, 90.0, 18, 20)]})
    made = claim("threshold", cells=["t/weak:max"], value="50", side="at_least")
    found = ask(made, alone)
    assert found.outcome == "undetermined"
    assert "nothing says how they spread" in found.detail
    end = ask(claim("threshold", cells=["t/weak:end"], value="50", side="at_least"), alone)
    assert (end.outcome, end.method) == ("holds", "exact binomial, 18 of 20")


def test_a_curve_itself_is_not_compared_by_a_claim() -> None:
    found = ask(claim("threshold", cells=["t/weak"], value="50", side="at_least"), WEAK)
    assert found.outcome == "not-evaluated"
    assert "is a curve" in found.detail


def test_a_question_without_an_answer_is_not_evaluated() -> None:
    uneven = under("t/weak", {"a": [(0, 25.0), (50, 90.0)], "b": [(0, 25.0), (40, 90.0)]})
    found = ask(claim("threshold", cells=["t/weak:max"], value="50", side="at_least"), uneven)
    assert found.outcome == "not-evaluated"
    assert "reach over different x" in found.detail


def test_a_failed_canary_of_the_curve_closes_what_is_asked() -> None:
    made = claim("threshold", cells=["t/weak:max"], value="50", side="at_least")
    broken = Canary(id="c", step="s", passed=False, detail="no attack", cells=["t/weak"])
    subject = Subject(
        expected=expectation([published("1", id="t/weak", unit="percent")], [made]),
        results=tables(WEAK, canaries=[broken]),
    )
    assert verify(subject).claims[0].outcome == "not-evaluated"


def test_a_claim_on_what_nobody_lists_is_refused() -> None:
    made = claim("threshold", cells=["t/other:max"], value="50", side="at_least")
    with pytest.raises(KitError, match="unknown cell"):
        ask(made, WEAK)
    with pytest.raises(KitError, match="can be asked"):
        ask(claim("threshold", cells=["t/weak:mean"], value="5", side="at_least"), WEAK)


def asked(
    id: str, value: str | None, kind: str, unit: str = "percent", **rule: Any
) -> ExpectedCell:
    return expected_cell(id=id, value=value, unit=unit, tolerance=tolerance(kind, **rule))


def report(cell: ExpectedCell, *curves: tuple[Cell, Series]) -> CellReport:
    return verify(Subject(expected=expectation([cell]), results=tables(*curves))).cells[0]


def test_published_answers_are_cells_like_any_other() -> None:
    top = report(asked("t/weak:max", "86.0", "seeds", margin="40"), WEAK)
    assert (top.verdict, top.value, top.seeds) == ("reproduced", 87.0, 5)
    assert report(asked("t/strong:max", "90.0", "seeds", margin="5"), STRONG).verdict == "deviates"
    kept = asked("t/strong:max", None, "bound", bound="45", side="at_most")
    assert report(kept, STRONG).verdict == "reproduced"
    alone = under("t/weak", {"": [(0, 25.0, 5, 20), (50, 90.0, 18, 20)]})
    single = report(asked("t/weak:max", None, "bound", bound="95", side="at_most"), alone)
    assert single.verdict == "inconclusive"


NEVER = "t/strong:first-above:50"


@pytest.mark.parametrize(
    ("value", "kind", "rule", "verdict"),
    [
        ("40", "seeds", {"margin": "5"}, "inconclusive"),
        (None, "bound", {"bound": "90", "side": "at_least"}, "reproduced"),
        (None, "bound", {"bound": "90", "side": "at_most"}, "deviates"),
        (None, "bound", {"bound": "200", "side": "at_least"}, "inconclusive"),
    ],
)
def test_numbers_against_crossings_that_never_happened(
    value: str | None, kind: str, rule: dict[str, str], verdict: str
) -> None:
    found = report(asked(NEVER, value, kind, "count", **rule), STRONG)
    assert (found.verdict, found.value) == (verdict, None)
    assert "not within 100 in 5 of 5 seeds" in found.detail


def test_six_seeds_that_never_crossed_deviate_from_an_early_crossing() -> None:
    six = under("t/strong", rising(30, 35, 28, 40, 33, 31))
    found = report(asked(NEVER, "40", "seeds", "count", margin="5"), six)
    assert (found.verdict, found.p) == ("deviates", 2 / 64)


@pytest.mark.parametrize(
    ("value", "margin", "verdict"),
    [("50", "10", "deviates"), ("95", "10", "inconclusive"), ("90", "10", "deviates")],
)
def test_a_single_run_that_never_crossed(value: str, margin: str, verdict: str) -> None:
    alone = under("t/strong", rising(30))
    found = report(asked(NEVER, value, "absolute", "count", margin=margin), alone)
    assert found.verdict == verdict
    bound = report(asked(NEVER, None, "bound", "count", bound="50", side="at_least"), alone)
    assert bound.verdict == "inconclusive"


def test_a_reference_is_made_of_answers_and_not_of_what_never_happened() -> None:
    answers, _ = with_answers(tables(WEAK, STRONG), ["t/weak:max", NEVER, "t/weak"])
    record = b"".join(msgspec.json.encode(cell) + b"\n" for cell in answers.values())
    found = measured(record, "record")
    assert [id for id in found if id in ("t/weak:max", NEVER, "t/weak")] == ["t/weak:max"]
    assert found["t/weak:max"].values == {"0": 80, "1": 85, "2": 90, "3": 85, "4": 95}


def test_the_selftest_plants_in_answers_too() -> None:
    cell = asked("t/weak:max", "86.0", "seeds", margin="40")
    subject = Subject(expected=expectation([cell]), results=tables(WEAK))
    assert {one.cell for one in selftest(subject, trials=20).reports} == {"t/weak:max"}


def test_curves_that_are_not_listed_but_asked_are_not_extra() -> None:
    cell = asked("t/weak:max", "86.0", "seeds", margin="40")
    verdict: Verdict = verify(Subject(expected=expectation([cell]), results=tables(WEAK)))
    assert not [note for note in verdict.notes if "not in the expectation" in note]


def test_a_curve_says_over_how_many_seeds_and_a_crossing_without_size_has_no_score() -> None:
    assert judge(published("2.0"), [2.0], [2.1], [1.9]).seeds == 3
    assert judge(published("2.0"), [2.0]).seeds == 0
    six = under("t/strong", rising(30, 35, 28, 40, 33, 31))
    found = report(asked(NEVER, "40", "seeds", "count", margin="5"), six)
    assert (found.p, found.z, found.difference) == (2 / 64, None, None)
