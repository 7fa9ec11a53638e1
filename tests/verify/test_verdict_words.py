"""What a verdict says of claims and cells, and which checks come before which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs
from scipy import stats

from kit.errors import InvalidInput, KitError
from kit.manifest.expectation_types import ExpectedCell
from kit.results.types import Canary, Cell, Results, SeedValue
from kit.verify import words
from kit.verify.core import Subject, verify
from kit.verify.outcome import NUMBERS_DO_NOT, decide_run
from kit.verify.verdict import CellReport, ClaimReport, Omnibus, Verdict
from kit.verify.words import (
    Documents,
    caveats,
    decides,
    headline,
    published,
    published_line,
)
from tests.report import builders as reports
from tests.verify.builders import (
    claim,
    expectation,
    expected_cell,
    line_of,
    one,
    run,
    seeded,
    share,
    table,
    tolerance,
    trajectory_cell,
)


class Seeds:
    """A measurement of which only the number of seeds is looked at."""

    def __init__(self, count: int) -> None:
        self.seeds = range(count)


def needed(counts: Sequence[int], p: float | None, holm: float | None = None, **fields: Any) -> str:
    cells: Any = {f"t/{i}": Seeds(count) for i, count in enumerate(counts)}
    defaults: dict[str, Any] = {"outcome": "undetermined", "cells": [*cells, "t/absent"]}
    report = ClaimReport(
        id="c", kind="order", sentence="s", place="p", primary=True, detail="", p=p, p_holm=holm,
        **defaults | fields,
    )  # fmt: skip
    return decides(report, cells, "pair")


@pytest.mark.parametrize("counts", [[2], [3], [7, 4, 9]])
@pytest.mark.parametrize("p", [0.06, 0.2, 0.4])
@pytest.mark.parametrize("strict", [None, 1.0, 2.0])
def test_so_many_replicates_decide_if_mean_and_spread_stay(
    counts: list[int], p: float, strict: float | None
) -> None:
    """t grows with the root of the count; of adjusted p-values the adjustment stays too."""
    said = needed(counts, p, None if strict is None else strict * p)
    size, least = int(said.split()[1]), min(counts)
    assert said == f"about {size} pairs would decide, if these numbers stay"
    t = stats.t.isf(p, least - 1)

    def adjusted(count: float) -> float:
        return float((strict or 1.0) * stats.t.sf(t * (count / least) ** 0.5, count - 1))

    assert adjusted(size + 1) <= 0.05 < adjusted(min(size - 1, size / 1.1))


@pytest.mark.parametrize(
    ("counts", "p", "fields"),
    [
        ([4], None, {}),
        ([4, 1], 0.2, {}),
        ([1], 0.2, {}),
        ([], 0.2, {}),
        ([4, 1], 0.9, {}),
        ([0], 0.9, {}),
        ([4], 0.2, {"outcome": "holds"}),
        ([4], 0.2, {"outcome": "fails"}),
        ([4], 0.4999999999, {}),
    ],
)
def test_where_no_number_of_replicates_can_be_said(
    counts: list[int], p: float | None, fields: dict[str, Any]
) -> None:
    assert needed(counts, p, **fields) == ""


@pytest.mark.parametrize("p", [0.5, 0.9])
def test_what_goes_the_other_way_would_not_hold(p: float) -> None:
    assert needed([4], p) == "as measured, it would not hold"


@pytest.mark.parametrize(("seeds", "said"), [(1, "c1: 2.000"), (2, "; 2 pairs"), (3, "; 3 pairs")])
def test_replicates_are_counted_where_there_are_several(seeds: int, said: str) -> None:
    cells = [ExpectedCell(id="t/a", unit="loss", status="reported", place="doc")]
    made = [seeded("t/a", [2.0, 2.5, 1.5][:seeds], "loss")]
    low = claim("threshold", cells=["t/a"], value="9", side="at_most")
    report = run(cells, made, [low], replicate="pair").claims[0]
    assert ("pairs" in report.tested) == (seeds > 1)
    assert report.tested.endswith(said if seeds > 1 else "asked: at most 9") or seeds == 1


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("order", {}, "my claim: 1 < 2"),
        ("ratio", {"value": "1", "side": "at_most"}, "my claim: 1 / 2"),
        ("within", {"margin": "2", "reason": "r"}, "my claim: 1 against 2"),
        ("threshold", {"value": "9", "side": "at_most"}, "my claim: 1, 2"),
    ],
)
def test_numbers_stand_as_their_kind_compares_them(
    kind: str, fields: dict[str, str], said: str
) -> None:
    made = claim(kind, id="my-claim", cells=["t/a", "t/b"], **fields)
    cells = {
        id: one_number(Cell(id=id, unit="loss", value=value))
        for id, value in (("t/a", 1.0), ("t/b", 2.0))
    }
    assert words.tested(made, cells, "", "seed") == said
    assert words.tested(made, cells, "asked so", "seed") == f"{said}; asked so"


def one_number(cell: Cell) -> Any:
    from kit.verify.measurement import measure

    return measure(cell, cell.unit, "results.json", None)


def test_the_cell_with_the_most_replicates_says_how_many_there_are() -> None:
    made = claim("order", cells=["t/a", "t/b"])
    cells = {
        id: one_number(seeded(id, [1.0] * count, "loss")) for id, count in (("t/a", 2), ("t/b", 4))
    }
    assert words.tested(made, cells, "", "pair").endswith("; 4 pairs")
    never = SeedValue(seed="0", value=9.0, beyond=True)
    cells = {"t/a": one_number(Cell(id="t/a", unit="count", seeds=[never]))}
    single = claim("threshold", id="once", cells=["t/a"], value="9", side="at_most")
    assert words.tested(single, cells, "", "pair") == "once: not within 9"


# The documents' own numbers.


PRINTED = expectation(
    [
        expected_cell("t/a", "1.9"),
        expected_cell("t/b", "94.0"),
        expected_cell("t/n", "3", unit="count"),
        expected_cell("t/none", None),
        expected_cell("t/s", "7", unit="seconds"),
    ],
    [
        claim("order", id="same-id", sentence="Another sentence.", cells=["t/a", "t/b"]),
        claim("order", id="x", sentence="It works.", cells=["t/n", "t/none", "t/absent", "t/s"]),
    ],
)


@pytest.mark.parametrize(
    ("id", "sentence", "said"),
    [
        ("same-id", "It works.", "printed 1.9 %, 94.0 %; "),
        ("new", "It works.", "printed 3, 7 s; "),
        ("new", "Another sentence.", "printed 1.9 %, 94.0 %; "),
        ("new", "Nobody says so.", ""),
    ],
)
def test_a_claim_has_the_printed_numbers_of_its_namesake_else_of_its_sentence(
    id: str, sentence: str, said: str
) -> None:
    made = claim("order", id=id, sentence=sentence, cells=["t/a", "t/b"])
    assert published(made, Documents("8B", expected=PRINTED)) == f"8B: {said}not run here"
    assert published(made, Documents(expected=PRINTED)) == f"{said}not run here"
    assert published(made, Documents("8B")) == "8B: not run here"
    assert published(made, Documents("8B", here=True, expected=PRINTED)) == ""


def verdict(word: str = "REPRODUCED", **fields: Any) -> Verdict:
    defaults: dict[str, Any] = {"cells": [], "claims": [], "exit_code": 0}
    return Verdict(experiment="e", profile="p", version="1", verdict=word, **defaults | fields)  # type: ignore[arg-type]


def outcomes(*words: str, primary: bool = True) -> list[ClaimReport]:
    return [reports.claim(f"c{i}", outcome=word, primary=primary) for i, word in enumerate(words)]


def cells(*words: str, printed: str | None = "1.9") -> list[CellReport]:
    return [
        structs.replace(reports.cell(f"t/{i}", verdict=word), published=printed)
        for i, word in enumerate(words)
    ]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (verdict(), "REPRODUCED (no primary claims; 0 of 0 cells agree)"),
        (verdict(cells=cells("match", "reproduced", "deviates", "missing", "invalid")),
         "REPRODUCED (no primary claims; 2 of 5 cells agree)"),
        (verdict(claims=outcomes("fails", primary=False)),
         "REPRODUCED (no primary claims; 0 of 0 cells agree)"),
        (verdict(claims=outcomes("holds", "holds")), "REPRODUCED (2 of 2 primary claims)"),
        (verdict(claims=outcomes("holds", "fails")),
         "REPRODUCED (1 of 2 primary claims hold, 1 fails)"),
        (verdict(claims=outcomes("fails", "fails", "undetermined", "not-evaluated")),
         "REPRODUCED (0 of 4 primary claims hold, 2 fail, 1 open, 1 not evaluated)"),
        (verdict(claims=outcomes("holds", "undetermined", "undetermined")),
         "REPRODUCED (1 of 3 primary claims hold, 2 open)"),
        (verdict("REHEARSED"),
         "REHEARSED (stand-in weights and data: says nothing about any claim)"),
        (verdict("NOT COMPARED", cells=cells("match")),
         "NOT COMPARED (no expectation; 1 cell measured)"),
        (verdict(modified=True, claims=outcomes("holds")),
         "REPRODUCED (modified) (1 of 1 primary claims)"),
        (verdict(modified=True, not_run_here=True, scale="8B", published="so",
                 claims=outcomes("holds")),
         "REPRODUCED (modified, not run here) at 8B scale (1 of 1 primary claims); so"),
    ],
)  # fmt: skip
def test_the_headline_counts_what_decided(made: Verdict, said: str) -> None:
    assert headline(made) == said


@pytest.mark.parametrize(
    ("made", "documents", "said"),
    [
        (verdict(cells=cells("match")), Documents("8B"), "published 8B numbers: not run"),
        (verdict(cells=cells("match")), Documents(), "published numbers: not run"),
        (verdict("REHEARSED", cells=cells("match")), Documents("8B", here=True),
         "published 8B numbers: not run"),
        (verdict(cells=cells("match", "deviates", "invalid", "not-run", "not-compared", "missing")
                 + cells("match", printed=None)),
         Documents("8B", here=True), "published numbers: 3 of 6 compared"),
    ],
)  # fmt: skip
def test_how_many_printed_numbers_were_compared(
    made: Verdict, documents: Documents, said: str
) -> None:
    assert published_line(made, documents) == said


def test_a_caveat_names_what_was_tested_else_how_it_came_out() -> None:
    made = [
        structs.replace(report, tested=words, detail="so it came")
        for report, words in zip(outcomes("holds", "fails"), ["this", ""], strict=True)
    ]
    assert caveats(["{c0}, {c1} and {c2}"], made) == ["this: holds, so it came: fails and {c2}"]


# From a table to a verdict.


def said_of(expected: ExpectedCell, *measured: Cell, **fields: Any) -> CellReport:
    results = table(list(measured), **fields)
    return verify(Subject(expected=expectation([expected]), results=results)).cells[0]


SKIPPED = Cell(id="t/a", unit="loss", not_run="no time")


@pytest.mark.parametrize(
    ("kind", "fields", "margin"),
    [
        ("absolute", {"margin": "5"}, 5.0),
        ("relative", {"margin": "0.1", "floor": "1"}, None),
        ("exact", {}, None),
        ("seeds", {"margin": "2.5"}, 2.5),
    ],
)
def test_a_cell_without_a_comparison_keeps_a_margin_that_is_in_its_unit(
    kind: str, fields: dict[str, str], margin: float | None
) -> None:
    report = said_of(expected_cell(unit="loss", tolerance=tolerance(kind, **fields)), SKIPPED)
    assert (report.verdict, report.margin, report.kind) == ("not-run", margin, kind)
    assert said_of(expected_cell(unit="loss", tolerance=None), SKIPPED).margin is None


@pytest.mark.parametrize("gap", [0.5, -0.5, 3.0, -3.0, 0.05])
@pytest.mark.parametrize("direction", ["lower_is_better", "higher_is_better", "none"])
def test_a_deviation_for_the_better_is_said_to_be_one(gap: float, direction: str) -> None:
    rule = tolerance("absolute", margin="0.1")
    expected = expected_cell(value="10.00", unit="loss", tolerance=rule, direction=direction)
    report = one(expected, Cell(id="t/a", unit="loss", value=10 + gap))
    better = {"lower_is_better": gap < 0, "higher_is_better": gap > 0, "none": False}[direction]
    assert (report.verdict == "deviates") == (abs(gap) > 0.1)
    assert ("better than published" in report.detail) == (better and abs(gap) > 0.1)


@pytest.mark.parametrize(
    ("ask", "verdict", "says"),
    [("t/a:end", "invalid", "without points"), ("t/b:end", "missing", "no value")],
)
def test_a_question_that_a_curve_cannot_answer_is_invalid_and_without_a_curve_it_is_missing(
    ask: str, verdict: str, says: str
) -> None:
    expected = expected_cell(ask, "2", unit="loss", tolerance=tolerance("absolute", margin="1"))
    series = [line_of("t/a", {"0": []})]
    report = said_of(expected, trajectory_cell("t/a"), series=series)
    assert report.verdict == verdict
    assert says in report.detail


@pytest.mark.parametrize(("step", "refused"), [("", True), ("table", False)])
@pytest.mark.parametrize("brought", [True, False])
def test_only_in_a_table_by_hand_an_unknown_cell_is_a_slip(
    step: str, refused: bool, brought: bool
) -> None:
    """A table that some run wrote, be it in one cell, measures more than the document prints."""
    results = table([share("t/a", 10, 208, step=step), share("t/b", 10, 208)])
    made = Subject(expected=expectation([expected_cell(n=208)]), results=results,
                   not_run_here=brought)  # fmt: skip
    if refused and brought:
        with pytest.raises(KitError, match="unknown cell 't/b'"):
            verify(made)
    else:
        notes = verify(made).notes
        assert notes == ["1 measured cell is not in the expectation and not compared: t/b"]


def test_what_is_not_said_is_not_so() -> None:
    """A verdict is unmarked, and a report of a cell unshifted, unless somebody says otherwise."""
    plain = verdict()
    assert {plain.modified, plain.own_expectation, plain.not_run_here} == {False}
    bare = CellReport(id="t/a", table="t", status="reported", place="p", unit="loss",
                      verdict="match", detail="")  # fmt: skip
    assert (bare.seeds, bare.shifted, bare.published) == (0, False, None)
    report = ClaimReport(id="c", kind="order", sentence="s", place="p", primary=True, cells=[],
                         outcome="holds", detail="")  # fmt: skip
    assert report.rests_on_unmeasured is False


@pytest.mark.parametrize(
    ("verdicts", "reasons"),
    [
        (["match", "reproduced"], ["2 of 2 agree"]),
        (["match", "inconclusive"], ["1 of 2 agree", "1 inconclusive: t/1"]),
        (["match", "deviates", "not-run"], ["1 of 3 agree", "1 deviate: t/1", "1 not run: t/2"]),
        (["not-compared"], ["0 of 1 agree"]),
    ],
)
def test_cells_decide_with_their_reasons_and_no_others(
    verdicts: list[str], reasons: list[str]
) -> None:
    _, said = decide_run(cells(*verdicts), [], rehearsal=False)
    assert said == ["no primary claims: the cells decide", *reasons]


def test_a_table_that_is_off_is_no_news_of_claims_where_none_is_primary() -> None:
    off = Omnibus(table="t", tested=20, differing=9, chance=4, exceeds=True, mean_z=None,
                  sentence="9 of 20 differ")  # fmt: skip
    for primary, first in ((True, NUMBERS_DO_NOT), (False, "cells agree one by one")):
        made = outcomes("holds") if primary else []
        made += [structs.replace(made_, id="aside") for made_ in outcomes("fails", primary=False)]
        verdict_, reasons = decide_run(cells("match"), made, rehearsal=False, tables=[off])
        assert verdict_ == "PARTIALLY"
        assert reasons[0].startswith(first)


@pytest.mark.parametrize(("without", "word"), [(0, "PARTIALLY"), (1, "NOT REPRODUCED")])
def test_deviations_are_chance_only_where_all_of_them_have_noise(without: int, word: str) -> None:
    made = cells(*["match"] * 40, "deviates", "deviates")
    made[-1] = structs.replace(made[-1], p=None) if without else made[-1]
    assert decide_run(made, [], rehearsal=False)[0] == word


@pytest.mark.parametrize("direction", ["lower_is_better", "higher_is_better"])
def test_a_deviation_of_unknown_size_is_in_no_direction(direction: str) -> None:
    rule = tolerance("seeds", margin="5")
    expected = expected_cell(value="50", unit="count", tolerance=rule, direction=direction)
    seeds = [SeedValue(seed=str(i), value=100.0, beyond=True) for i in range(6)]
    report = one(expected, Cell(id="t/a", unit="count", seeds=seeds))
    assert (report.verdict, report.difference, report.z) == ("deviates", None, None)
    assert "better" not in report.detail


@pytest.mark.parametrize("curves", [0, 1, 2, 3])
def test_replicates_of_a_curve_count_where_there_are_several(curves: int) -> None:
    rule = tolerance("trajectory", margin="1")
    expected = expected_cell(value=None, unit="loss", tolerance=rule,
                             series=[["0", "1"], ["1", "2"]])  # fmt: skip
    series = [line_of("t/a", {str(i): [(0.0, 1.0), (1.0, 2.0)] for i in range(curves)})]
    made = [trajectory_cell("t/a")] if curves else []
    report = said_of(expected, *made, series=series if curves else [])
    assert report.seeds == (curves if curves > 1 else 0)
    assert (report.value, report.value_interval, report.k, report.n) == (None, None, None, None)
    assert (report.verdict == "missing") == (curves == 0)


@pytest.mark.parametrize(("id", "table_"), [("t/a/b", "t"), ("t/a", "t"), ("alone", "all")])
def test_a_cell_belongs_to_the_table_that_its_id_begins_with(id: str, table_: str) -> None:
    report = one(expected_cell(id, n=208), share(id, 10, 208))
    assert (report.table, report.k, report.n, report.seeds) == (table_, 10, 208, 0)
    assert report.value == pytest.approx(100 * 10 / 208)
    assert report.value_interval is not None
    assert one(expected_cell(id, n=208), seeded(id, [4.0, 5.0])).seeds == 2


def test_a_failed_canary_spoils_the_cells_that_it_names() -> None:
    canaries = [
        Canary(id="first", step="s", passed=False, detail="one", cells=["t/a"]),
        Canary(id="second", step="s", passed=False, detail="two", cells=["t/"]),
        Canary(id="third", step="s", passed=True, detail="three", cells=["t/"]),
    ]
    measured = [share("t/a", 10, 208), share("t/b", 10, 208)]
    expected = [expected_cell("t/a", n=208), expected_cell("t/b", n=208)]
    found = run(expected, measured, canaries=canaries)
    assert [cell.verdict for cell in found.cells] == ["invalid", "invalid"]
    assert [cell.detail for cell in found.cells] == [
        "canary first failed: one", "canary second failed: two"
    ]  # fmt: skip
    assert [canary.passed for canary in found.canaries if canary.source == "step"] == [
        False, False, True
    ]  # fmt: skip
    assert "canary first failed: one" in found.reasons


@pytest.mark.parametrize(("status", "hint"), [("reference", True), ("reported", False)])
def test_a_cell_without_a_number_says_what_is_to_be_done(status: str, hint: bool) -> None:
    expected = expected_cell(value=None, status=status, unit="loss",
                             tolerance=tolerance("absolute", margin="1"))  # fmt: skip
    report = one(expected, Cell(id="t/a", unit="loss", value=2.0))
    assert report.verdict == "not-compared"
    assert report.detail.startswith("no number to compare with yet")
    assert ("kit reference" in report.detail) == hint
    assert report.detail.endswith("; this run has 2")


@pytest.mark.parametrize(
    ("fields", "measured", "verdict", "detail"),
    [
        ({"status": "quoted", "value": "5", "tolerance": None}, 2.0, "not-compared",
         "quoted from elsewhere; this run has 2"),
        ({"status": "quoted", "value": "5"}, None, "not-compared", "quoted from elsewhere"),
        ({"status": "reported", "value": "5", "tolerance": None}, 2.0, "not-compared",
         "no tolerance is declared; this run has 2"),
        ({"status": "reported", "value": "5"}, None, "missing",
         "the table has no value for this cell"),
        ({"status": "diverged", "value": None}, 2.0, "not-compared",
         "the document has no final number: diverged; this run has 2"),
        ({"status": "running", "value": "5"}, 5.0, "match", ""),
        ({"status": "quoted", "value": "5"}, 5.0, "match", ""),
    ],
)  # fmt: skip
def test_what_is_compared_depends_on_what_the_document_has(
    fields: dict[str, Any], measured: float | None, verdict: str, detail: str
) -> None:
    defaults: dict[str, Any] = {"unit": "loss", "tolerance": tolerance("absolute", margin="1")}
    made = [] if measured is None else [Cell(id="t/a", unit="loss", value=measured)]
    report = said_of(expected_cell(**defaults | fields), *made)
    assert report.verdict == verdict
    assert report.detail.startswith(detail)


def test_a_curve_is_no_number_and_a_number_is_no_curve() -> None:
    curve = expected_cell(value=None, unit="loss", tolerance=tolerance("trajectory", margin="1"),
                          series=[["0", "1"], ["1", "2"]])  # fmt: skip
    report = one(curve, Cell(id="t/a", unit="loss", value=2.0))
    assert (report.verdict, report.detail) == ("missing", "the table has no curve for this cell")
    number = expected_cell(value="2", unit="loss", tolerance=tolerance("absolute", margin="1"))
    series = [line_of("t/a", {"0": [(0.0, 1.0), (1.0, 2.0)]})]
    report = said_of(number, trajectory_cell("t/a"), series=series)
    assert (report.verdict, report.detail) == ("missing", "the table has no value for this cell")


def test_another_experiment_is_refused() -> None:
    made = Results(schema_version=1, experiment="x", version="1-A", profile="mini", cells=[])
    with pytest.raises(InvalidInput, match="'experiment'"):
        verify(Subject(expected=expectation([]), results=made))
