"""Borders of claims, of ratios behind cells and of copies among replicates."""

from __future__ import annotations

from fractions import Fraction
from math import hypot

import numpy as np
import pytest
from scipy import stats

from kit.manifest.expectation_types import Claim, Derived, ExpectedCell
from kit.results.labels import Labels, LabelTable
from kit.results.types import Cell, Curve, Point, SeedValue
from kit.verify.canaries import duplicate_seeds, letter_collapse
from kit.verify.claims import Evidence, claim_cells, claim_faults
from kit.verify.finding import ALPHA
from kit.verify.proportions import Z90, Z95, Ratio, Term
from kit.verify.trajectory import mean_line, share_interval, shared_grid
from kit.verify.verdict import CellReport
from tests.verify.builders import (
    claim,
    expected_cell,
    labels,
    memory,
    one_claim,
    run,
    seeded_shares,
    share,
    table,
    tolerance,
)

A, B, C = "t/a", "t/b", "t/c"


def number(id: str, value: float) -> Cell:
    return Cell(id=id, unit="loss", value=value)


# -- claims


@pytest.mark.parametrize(
    ("holds", "fails", "outcome"),
    [
        (ALPHA, 0.9, "holds"),
        (np.nextafter(ALPHA, 1), 0.9, "undetermined"),
        (0.9, ALPHA, "fails"),
        (0.9, np.nextafter(ALPHA, 1), "undetermined"),
        (None, None, "undetermined"),
        (None, 0.01, "fails"),
        (0.01, None, "holds"),
        (0.0, 0.0, "holds"),
    ],
)
def test_p_at_the_level_decides(holds: float | None, fails: float | None, outcome: str) -> None:
    evidence = Evidence(holds, fails, None, "", "")
    assert evidence.outcome(holds, fails) == outcome
    assert Evidence(None, None, "fails", "", "").outcome(holds, fails) == "fails"


def test_cells_of_a_claim_once_and_in_order() -> None:
    asked = claim("direction", cells=[B, A], pairs=[[A, C], [C, B]], side="at_most")
    assert claim_cells(asked) == [B, A, C]


@pytest.mark.parametrize(
    ("asked", "faults"),
    [
        (claim("order", cells=[A, B]), 0),
        (claim("order", cells=[A]), 1),
        (claim("threshold", cells=[A], value="1", side="at_most"), 0),
        (claim("threshold", cells=[], value="1", side="at_most"), 1),
        (claim("threshold", cells=[A], side="at_most"), 1),
        (claim("threshold", cells=[A], value="1"), 1),
        (claim("ratio", cells=[A, B], value="1", side="at_least"), 0),
        (claim("ratio", cells=[A, B, C], value="1", side="at_least"), 1),
        (claim("ratio", cells=[A]), 3),
        (claim("within", cells=[A, B]), 0),
        (claim("within", cells=[A]), 1),
        (claim("direction", pairs=[[A, B]], side="at_most"), 0),
        (claim("direction", pairs=[], side="at_most"), 1),
        (claim("direction", pairs=[[A, B, C]], side="at_most"), 1),
        (claim("direction", pairs=[[A, B]]), 1),
        (claim("direction", pairs=[[A, B]], side="at_most", at_least_pairs=1), 0),
        (claim("direction", pairs=[[A, B]], side="at_most", at_least_pairs=2), 1),
        (claim("direction", pairs=[[A, B]], side="at_most", at_least_pairs=0), 1),
    ],
)
def test_what_a_claim_lacks(asked: Claim, faults: int) -> None:
    assert len(list(claim_faults(asked))) == faults


@pytest.mark.parametrize(
    ("kind", "values", "fields", "outcome"),
    [
        ("ratio", (3.0, 1.5), {"value": "2", "side": "at_least"}, "holds"),
        ("ratio", (3.0, 1.5), {"value": "2", "side": "at_most"}, "holds"),
        ("ratio", (3.1, 1.5), {"value": "2", "side": "at_most"}, "fails"),
        ("within", (2.0, 1.5), {"margin": "0.5"}, "holds"),
        ("within", (1.5, 2.0), {"margin": "0.5"}, "holds"),
        ("within", (2.25, 1.5), {"margin": "0.5"}, "fails"),
        ("within", (1.5, 2.25), {"margin": "0.5"}, "fails"),
        ("within", (1.5, 2.25), {"margin": "0.5", "side": "at_most"}, "holds"),
        ("within", (2.25, 1.5), {"margin": "0.5", "side": "at_least"}, "holds"),
        ("within", (2.25, 1.5), {"margin": "0.5", "side": "at_most"}, "fails"),
        ("order", (1.0, 1.5), {"margin": "0.5"}, "holds"),
        ("order", (1.0, 1.0), {"margin": "0"}, "undetermined"),
        ("order", (1.0, 1.25), {"margin": "0.5"}, "fails"),
    ],
)
def test_exact_numbers_at_the_edge_of_a_claim(
    kind: str, values: tuple[float, float], fields: dict[str, str], outcome: str
) -> None:
    cells = [number(A, values[0]), number(B, values[1])]
    assert one_claim(claim(kind, cells=[A, B], **fields), cells).outcome == outcome


@pytest.mark.parametrize(
    ("margin", "side", "outcome"),
    [("0.5", "at_most", "holds"), ("0.5", "at_least", "fails"), ("0", "at_most", "holds"),
     ("0.75", "at_most", "fails")],
)  # fmt: skip
def test_a_direction_by_just_its_margin(margin: str, side: str, outcome: str) -> None:
    asked = claim("direction", pairs=[[A, B]], side=side, margin=margin)
    assert one_claim(asked, [number(A, 2.0), number(B, 1.5)]).outcome == outcome


def test_a_direction_that_does_not_move_is_open() -> None:
    asked = claim("direction", pairs=[[A, B]], side="at_most")
    assert one_claim(asked, [number(A, 2.0), number(B, 2.0)]).outcome == "undetermined"


@pytest.mark.parametrize("value", ["100", "0.5"])
def test_certain_and_random_parts_of_a_claim_together(value: str) -> None:
    """A number without noise settles its own part only: the other decides with its p."""
    cells = [Cell(id=A, unit="percent", value=1.0), share(B, 100, 208)]
    asked = claim("threshold", cells=[A, B], value=value, side="at_most")
    report = one_claim(asked, cells)
    assert report.p is not None, "not plain: something random is asked"
    assert report.outcome == ("holds" if value == "100" else "fails")
    sure = claim("threshold", cells=[A, B], value="40", side="at_most")
    held = one_claim(sure, cells)
    alone = stats.binomtest(100, 208, 0.4, "greater").pvalue
    assert held.p_fails == pytest.approx(2 * alone), "either of two would be enough to fail"


# -- ratios behind a cell

NAMES = ["g/undefended", "g/this", "g/full"]
PRINTED = ("69.2", "11.5", "2.4")


def gap_cell(
    counts: tuple[int, int, int], n: int | None = 208, printed: tuple[str, ...] = PRINTED
) -> CellReport:
    """A gap printed as 0.863 beside its three rates."""
    cells = [expected_cell(id, v, n=n) for id, v in zip(NAMES, printed, strict=False)]
    for id in NAMES[len(printed) :]:
        cells.append(expected_cell(id, None, status="unreported"))
    rule = Derived(formula="gap_closed", cells=NAMES)
    cells.append(
        ExpectedCell(id="g/gap", unit="ratio", status="reported", place="d", value="0.863",
                     derived=rule, tolerance=tolerance("binomial", margin="0.1"))
    )  # fmt: skip
    u, t, f = counts
    made = [share(id, k, 208) for id, k in zip(NAMES, counts, strict=True)]
    made.append(Cell(id="g/gap", unit="ratio", value=(u - t) / (u - f)))
    return run(cells, made).cells[-1]


def fieller(rates: list[float], n: float) -> Ratio:
    over = tuple(Term(w, p, n) for w, p in zip((1, -1, 0), rates, strict=True))
    under = tuple(Term(w, p, n) for w, p in zip((1, 0, -1), rates, strict=True))
    return Ratio(over, under, None)


@pytest.mark.parametrize("counts", [(144, 34, 5), (144, 60, 5), (144, 12, 5)])
def test_the_interval_of_two_gaps_is_as_wide_as_both_and_the_print(
    counts: tuple[int, int, int],
) -> None:
    made = gap_cell(counts)
    here = fieller([k / 208 for k in counts], 208)
    there = fieller([float(v) / 100 for v in PRINTED], 208)
    for z, interval in ((Z95, made.interval), (Z90, made.interval_equivalence)):
        low, high = here.interval(z)
        other = there.interval(z)
        gap = here.value - 0.863
        assert interval is not None
        below = gap - hypot(here.value - low, other[1] - 0.863) - 0.0005
        above = gap + hypot(high - here.value, 0.863 - other[0]) + 0.0005
        assert (interval.low, interval.high) == pytest.approx((below, above))
    assert made.p is not None
    wide = made.interval
    assert wide is not None
    assert (made.p < 0.05) == (wide.low > 0 or wide.high < 0)


def test_p_of_a_gap_is_the_level_at_which_its_interval_reaches_zero() -> None:
    made = gap_cell((144, 34, 5))
    assert made.p is not None
    assert 0.05 < made.p < 1
    z = float(stats.norm.isf(made.p / 2))
    here, there = fieller([144 / 208, 34 / 208, 5 / 208], 208), fieller([0.692, 0.115, 0.024], 208)
    gap = here.value - 0.863
    above = gap + hypot(here.interval(z)[1] - here.value, 0.863 - there.interval(z)[0]) + 0.0005
    assert above == pytest.approx(0, abs=1e-4)


def test_without_all_printed_rates_the_printed_gap_has_no_noise() -> None:
    less, more = gap_cell((144, 34, 5), printed=PRINTED[:2]), gap_cell((144, 34, 5))
    assert less.interval is not None
    assert more.interval is not None
    assert less.interval.low > more.interval.low
    here = fieller([144 / 208, 34 / 208, 5 / 208], 208)
    low = here.interval(Z95)[0]
    assert less.interval.low == pytest.approx(low - 0.863 - 0.0005)
    assert gap_cell((144, 34, 5), n=None).interval == more.interval, "items as measured here"


# -- copies among replicates, a single letter


def replicates(**vectors: list[str]) -> tuple[list[Cell], LabelTable]:
    cells, lines = [], []
    for name, bits in vectors.items():
        seeds = []
        for at, vector in enumerate(bits):
            id = f"{name}-{at}"
            lines.append(labels(id, vector))
            share_of = 100 * vector.count("1") / len(vector)
            seeds.append(SeedValue(seed=f"s{at}", value=share_of, labels=id))
        cells.append(Cell(id=f"t/{name}", unit="percent", value=1.0, seeds=seeds))
    return cells, memory(*lines)


def copies(**vectors: list[str]) -> list[bool]:
    cells, lines = replicates(**vectors)
    return [report.passed for report in duplicate_seeds(table(cells), lines)]


@pytest.mark.parametrize(("ones", "seen"), [(2, False), (3, True), (47, True), (48, False)])
def test_vectors_with_three_of_each_label_are_evidence(ones: int, seen: bool) -> None:
    vector = "1" * ones + "0" * (50 - ones)
    assert copies(a=[vector, vector]) == ([False] if seen else [])


def test_vectors_of_other_lengths_are_not_compared() -> None:
    assert copies(a=["10" * 10, "10" * 11]) == []


def answers(choices: str, right: str = "") -> list[tuple[bool, str]]:
    line = Labels(
        id="l", labels=[int(a == b) for a, b in zip(choices, right or choices, strict=True)],
        choices=list(choices), answers=list(right),
    )  # fmt: skip
    cell = Cell(id="mc/a", unit="percent", value=1.0, labels="l")
    found = letter_collapse(table([cell]), memory(line))
    return [(report.passed, report.detail) for report in found]


def test_nine_answers_of_ten_alike_are_a_collapse() -> None:
    assert answers("A" * 9 + "B", "ABCD" * 2 + "AB")[0][0] is False
    assert answers("A" * 89 + "B" * 11, "ABCD" * 25)[0][0] is True
    assert answers("A" * 90 + "B" * 10, "A" * 90 + "B" * 10)[0][0] is True, "as in the key"
    assert answers("A" * 90 + "B" * 10, "A" * 89 + "B" * 11)[0][0] is False


def test_a_collapse_says_its_letter_and_what_it_alone_would_score() -> None:
    ((passed, detail),) = answers("B" * 39 + "A", "ABCD" * 10)
    assert not passed
    assert "97.5 % of the answers are 'B'" in detail
    assert "accuracy 25.0 %, always 'B' would give 25.0 %" in detail
    ((_, without),) = answers("B" * 39 + "A")
    assert "would give" not in without


def test_sets_of_answers_are_counted() -> None:
    line = Labels(id="l", labels=[1, 0], choices=["A", "B"], answers=["A", "A"])
    bare = Labels(id="b", labels=[1, 0])
    cells = [Cell(id=f"mc/{i}", unit="percent", value=1.0, labels="l") for i in "ab"]
    cells.append(Cell(id="mc/c", unit="percent", value=1.0, labels="b"))
    (made,) = letter_collapse(table(cells), memory(line, bare))
    assert made.passed
    assert made.detail.startswith("2 sets of answers use")
    (single,) = letter_collapse(table(cells[:1]), memory(line))
    assert single.detail.startswith("1 set of answers uses")
    assert letter_collapse(table(cells[2:]), memory(bare)) == []


# -- mean lines


def curve(seed: str, xs: list[float]) -> Curve:
    return Curve(seed=seed, points=[Point(x=x, value=2 * x) for x in xs])


@pytest.mark.parametrize("most", [None, 2, 3, 5, 11, 12])
def test_a_mean_line_has_both_ends_and_as_many_points_as_are_wanted(most: int | None) -> None:
    curves = [curve("0", [float(x) for x in range(11)]), curve("1", [float(x) for x in range(11)])]
    line = mean_line(curves, "loss", most)
    assert len(line) == min(11, most or 11)
    assert (line[0].x, line[-1].x) == (0.0, 10.0)
    assert [point.value for point in line] == [2 * point.x for point in line]
    steps = np.diff([point.x for point in line])
    assert steps.max() - steps.min() <= 1


def test_a_mean_line_stands_where_every_curve_has_a_point() -> None:
    assert shared_grid([curve("0", [0.0, 2.0, 1.0]), curve("1", [1.0, 0.0])]) == [0.0, 1.0]
    assert shared_grid([]) == []


@pytest.mark.parametrize(
    ("value", "unit", "known"),
    [(0.0, "percent", True), (100.0, "percent", True), (100.1, "percent", False),
     (-0.1, "percent", False), (1.0, "fraction", True), (1.1, "fraction", False),
     (0.5, "loss", False)],
)  # fmt: skip
def test_a_printed_share_has_wilsons_interval(value: float, unit: str, known: bool) -> None:
    made = share_interval(value, 50, unit)
    assert (made is not None) == known
    if made is not None:
        scale = 100 if unit == "percent" else 1
        theirs = stats.binomtest(round(value / scale * 50), 50).proportion_ci(method="wilson")
        assert (made.low, made.high) == pytest.approx((theirs.low * scale, theirs.high * scale))


def test_an_interval_of_shares_stays_among_shares() -> None:
    points = [Point(x=1.0, value=v, k=k, n=4) for v, k in ((100.0, 4), (75.0, 3))]
    curves = [Curve(seed=str(i), points=[point]) for i, point in enumerate(points)]
    (point,) = mean_line(curves, "percent")
    assert point.interval is not None
    assert (point.interval.high, point.interval.level) == (100.0, 0.95)
    assert point.interval.low == pytest.approx(max(0.0, 87.5 - 12.706 * 12.5), abs=0.1)
    assert seeded_shares("t/a", [4, 3], 4).value == point.value
    assert Fraction(point.value) == Fraction(875, 10)
