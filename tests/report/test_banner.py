"""The first screen in words: verdict, what it covers and omits, marks, and the claims."""

from __future__ import annotations

from typing import Any

import pytest

from kit.report.claims import CLASS, MOST_CLAIMS, Banner, banner, brief, claim_rows
from kit.verify.outcome import NOT_WHOLE
from tests.report.builders import cell, claim, verdict


def shown(
    *, variant: str = "corrected", rehearsal: bool = False, seeds: int = 0, **fields: Any
) -> Banner:
    defaults: dict[str, Any] = {"cells": [], "claims": [], "not_covered": [], "exit_code": 0}
    made = verdict(**(defaults | fields))
    return banner(made, variant=variant, rehearsal=rehearsal, seeds=seeds)


def test_what_a_verdict_covers_is_counted() -> None:
    outcomes = ["holds", "holds", "fails", "undetermined", "not-evaluated"]
    claims = [claim(f"c{i}", outcome=word) for i, word in enumerate(outcomes)]
    claims.append(claim("aside", primary=False, outcome="fails"))
    made = shown(claims=claims, cells=[cell("t/a"), cell("t/b")], seeds=3)
    said = "It covers 5 primary claims and 2 cells at the mini profile, over 3 seeds."
    assert made.covers == said
    said = "It covers 1 primary claim and 0 cells at the mini profile."
    assert shown(claims=claims[:1]).covers == said
    assert shown().covers == "It covers 0 primary claims and 0 cells at the mini profile."
    assert dict(made.facts)["seeds"] == "3"
    assert dict(shown().facts)["seeds"] == "single run"
    assert dict(shown(variant="").facts)["variant"] == "not recorded"


def test_what_a_verdict_omits() -> None:
    cells = [cell("t/a", verdict=word) for word in ("match", "not-run", "not-compared", "missing")]
    few = "It says nothing about 1 cell that has no comparison."
    assert shown(cells=cells[:2]).omits == few
    assert shown(cells=cells, not_covered=["a."]).omits == (
        "It says nothing about 3 cells that have no comparison."
    )
    assert shown(cells=cells[:1], not_covered=["a.", "b."]).omits == (
        "It says nothing about 2 points listed under \u201cnot run\u201d."
    )
    assert shown(cells=cells[:1]).omits == "Nothing that the expectation lists was left out."
    as_reported = " The document\u2019s protocol is repeated as it is, flaws included."
    assert shown(cells=cells[:2], variant="as-reported").omits == few + as_reported
    assert shown(variant="as-reported").omits == as_reported.strip()
    scoped = shown(cells=cells[:2], scope="one pair of models").omits
    assert scoped == (
        "It says nothing about anything but one pair of models, nor about 1 cell that has no "
        "comparison."
    )


def test_marks_stand_for_what_happened_and_for_nothing_else() -> None:
    assert shown().marks == []
    assert [mark for mark, _ in shown(rehearsal=True).marks] == ["rehearsal"]
    assert [mark for mark, _ in shown(verdict="REHEARSED").marks] == ["rehearsal"]
    assert shown(modified=True).marks == [("modified", "parameters were overridden")]
    assert shown(modified=True, overrides=["a=1", "b=2"]).marks == [("modified", "a=1; b=2")]
    assert [mark for mark, _ in shown(not_run_here=True).marks] == ["not run here"]
    assert [mark for mark, _ in shown(exit_code=4).marks] == ["invalid"]
    assert [mark for mark, _ in shown(exit_code=5).marks] == []


def test_reasons_that_the_page_says_already_are_left_out() -> None:
    claims = [claim("a"), claim("b", outcome="fails"), claim("c", outcome="fails"),
              claim("d", outcome="fails", primary=False)]  # fmt: skip
    said = ["1 of 3 primary claims hold", "fails: b, c", "holds: a", "fails: b"]
    kept = ["fails: d", "2 of 3 primary claims hold", "other"]
    assert shown(claims=claims, reasons=[*said, *kept]).reasons == kept


def test_a_run_that_is_not_whole_says_so_instead_of_what_its_word_means() -> None:
    whole, part = (shown(verdict="INCOMPLETE", reasons=[reason])
                   for reason in ("no claim decided", f"{NOT_WHOLE} a step"))  # fmt: skip
    assert whole.meaning == "No primary claim could be decided."
    assert part.meaning == "Something that a whole run has is missing here."
    assert (whole.css, whole.word) == (CLASS["INCOMPLETE"], "INCOMPLETE")


def test_counts_stand_with_the_gravest_first() -> None:
    words = ["match", "reproduced", "match", "invalid", "deviates", "inconclusive", "missing"]
    made = shown(cells=[cell(f"t/{i}", verdict=word) for i, word in enumerate(words)])
    assert made.counts == [("invalid", 1), ("missing", 1), ("deviates", 1), ("inconclusive", 1),
                           ("reproduced", 1), ("match", 2)]  # fmt: skip


def test_primary_claims_come_first_and_those_that_hold_last_on_the_first_screen() -> None:
    claims = [claim("aside", primary=False), claim("a"), claim("b", outcome="fails"), claim("c")]
    rows = claim_rows(verdict(claims=claims), {})
    assert [row.said.id for row in rows] == ["a", "b", "c", "aside"]
    assert [row.anchor for row in rows] == ["q0", "q1", "q2", "q3"]
    few, left = brief(rows)
    assert ([row.said.id for row in few], left) == (["b", "a", "c"], 0)


@pytest.mark.parametrize(
    ("open_", "held", "kept", "left"),
    [(0, MOST_CLAIMS, MOST_CLAIMS, 0), (0, MOST_CLAIMS + 2, MOST_CLAIMS, 2),
     (MOST_CLAIMS + 3, 2, MOST_CLAIMS + 3, 2), (MOST_CLAIMS - 1, 2, MOST_CLAIMS, 1)],
)  # fmt: skip
def test_only_claims_that_hold_are_cut_from_the_first_screen(
    open_: int, held: int, kept: int, left: int
) -> None:
    claims = [claim(f"h{i}") for i in range(held)]
    claims += [claim(f"o{i}", outcome="undetermined") for i in range(open_)]
    few, rest = brief(claim_rows(verdict(claims=claims), {}))
    assert (len(few), rest) == (kept, left)
    assert sum(row.said.outcome == "undetermined" for row in few) == open_


def test_a_claim_says_how_it_was_decided_once() -> None:
    made = [
        claim("a", p=0.02, p_holm=None, tested="t"),
        claim("b", p=0.02, p_holm=0.0004, tested=""),
        claim("c", p=None, p_holm=None, tested="t", cells=["t/a", "t/b", "t/c"], detail="d"),
    ]
    a, b, c = claim_rows(verdict(claims=made), {"t/b": "c7"}, most=2)
    assert a.evidence == "paired seeds, p = 0.020"
    assert (b.evidence, b.tested) == ("p < 0.001 (Holm)", made[1].detail)
    assert (c.evidence, c.tested) == ("paired seeds", "t")
    assert (c.cells, c.more_cells) == ([("t/a", ""), ("t/b", "c7")], 1)
    assert (a.more_cells, a.css) == (0, "good")
