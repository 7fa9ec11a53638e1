"""The run verdict against a second writing of its rules, over all short combinations."""

from __future__ import annotations

from collections import Counter
from itertools import combinations_with_replacement, product

import pytest
from msgspec import structs

from kit.verify.multiple import chance_limit
from kit.verify.outcome import NOT_WHOLE, NUMBERS_DO_NOT, decide_run, uncovered
from kit.verify.verdict import CellReport, ClaimReport, Omnibus
from tests.report.builders import cell, claim

OUTCOMES = ("holds", "fails", "undetermined", "not-evaluated")
VERDICTS = ("match", "reproduced", "inconclusive", "deviates", "missing", "not-run",
            "not-compared", "invalid")  # fmt: skip


def claims(*words: str) -> list[ClaimReport]:
    return [claim(f"c{i}", outcome=word) for i, word in enumerate(words)]


def cells(*words: str) -> list[CellReport]:
    return [cell(f"t/{i}", verdict=word) for i, word in enumerate(words)]


@pytest.mark.parametrize("broken", [(), ("invalid",), ("missing", "match"), ("deviates",)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_primary_claims_decide(count: int, broken: tuple[str, ...]) -> None:
    """A failure outranks all; nothing but claims that hold and whole cells is reproduced."""
    for words in combinations_with_replacement(OUTCOMES, count):
        verdict, reasons = decide_run(cells(*broken), claims(*words), rehearsal=False)
        held = words.count("holds")
        whole = not {"invalid", "missing"} & {*broken}
        if "fails" in words:
            assert verdict == "NOT REPRODUCED"
        elif held == count and whole:
            assert verdict == "REPRODUCED"
        else:
            assert verdict == ("PARTIALLY" if held else "INCOMPLETE")
        assert reasons[0] == f"{held} of {count} primary claims hold"
        assert sum("undetermined: " in why for why in reasons) == words.count("undetermined")
        assert any(why.startswith("1 cell ") for why in reasons) != whole


@pytest.mark.parametrize("count", [1, 2, 3])
def test_without_primary_claims_cells_decide(count: int) -> None:
    aside = [structs.replace(one, primary=False) for one in claims("fails", "holds")]
    assert chance_limit(3) == 1
    for words in combinations_with_replacement(VERDICTS, count):
        verdict, reasons = decide_run(cells(*words), aside, rehearsal=False)
        seen = Counter(words)
        good = seen["match"] + seen["reproduced"]
        by_chance = seen["deviates"] <= chance_limit(count) and good > 0
        if seen["deviates"] and not by_chance:
            expected = "NOT REPRODUCED"
        elif not good:
            expected = "INCOMPLETE"
        else:
            open_ = [word for word in words if word not in ("match", "reproduced", "not-compared")]
            expected = "PARTIALLY" if open_ else "REPRODUCED"
        assert verdict == expected, words
        assert f"{good} of {count} agree" in reasons


def test_a_deviation_without_noise_is_never_chance() -> None:
    table = cells("match", "match", "deviates")
    assert decide_run(table, [], rehearsal=False)[0] == "PARTIALLY"
    table[2] = structs.replace(table[2], p=None)
    assert decide_run(table, [], rehearsal=False)[0] == "NOT REPRODUCED"


def line(exceeds: bool) -> Omnibus:
    return Omnibus(table="t", tested=20, differing=9, chance=4, exceeds=exceeds, mean_z=None,
                   sentence="9 of 20 differ")  # fmt: skip


@pytest.mark.parametrize(
    ("word", "exceeds", "absent", "alarm"), [*product(OUTCOMES, [0, 1], [0, 1], [0, 1])]
)
def test_what_else_keeps_a_run_from_being_reproduced(
    word: str, exceeds: int, absent: int, alarm: int
) -> None:
    verdict, reasons = decide_run(
        cells("match"), claims(word), rehearsal=False, tables=[line(bool(exceeds)), line(False)],
        absent=["a step"][:absent], alarms=["a canary"][:alarm],
    )  # fmt: skip
    if word == "fails":
        assert verdict == "NOT REPRODUCED"
    elif absent or word != "holds":
        assert verdict == "INCOMPLETE"
    else:
        assert verdict == ("PARTIALLY" if exceeds or alarm else "REPRODUCED")
    assert (reasons[0] == f"{NOT_WHOLE}: a step") == bool(absent)
    assert ("a canary" in reasons) == bool(alarm)
    shifted = [why for why in reasons if "9 of 20 differ" in why]
    assert len(shifted) == exceeds
    if exceeds and word == "holds" and not alarm:
        assert shifted[0].startswith(f"{NUMBERS_DO_NOT} (t: 9 of 20")
    elif exceeds:
        assert shifted == ["t: 9 of 20 differ"]


def test_rehearsals_and_runs_without_expectation_say_nothing_of_claims() -> None:
    verdict, reasons = decide_run([], claims("holds"), rehearsal=True, absent=["x"])
    assert (verdict, len(reasons)) == ("REHEARSED", 1)
    verdict, reasons = decide_run(
        [], [], rehearsal=False, absent=["a step"], alarms=["a canary"], uncompared=True
    )
    assert verdict == "NOT COMPARED"
    assert reasons[1:] == [f"{NOT_WHOLE}: a step", "a canary"]


def test_what_a_verdict_does_not_cover_is_listed() -> None:
    made = uncovered(
        [cell(f"t/{word}", verdict=word, detail="d") for word in VERDICTS], claims(*OUTCOMES)
    )
    assert [text.split(":")[0] for text in made] == [
        "cell t/missing", "cell t/not-run", "cell t/not-compared", "claim c3",
    ]  # fmt: skip
