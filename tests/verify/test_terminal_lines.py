"""What a verdict takes of a terminal: every line counted, every claim shown or counted."""

from __future__ import annotations

import re
from io import StringIO
from typing import Any, Literal

import pytest
from msgspec import structs
from rich.console import Console

from kit.verify.render import HEIGHT, MANY, MOST_CLAIMS, WIDTH, ending, lines, others, render
from kit.verify.verdict import CanaryReport, ClaimOutcome, ClaimReport, Verdict
from tests.verify.builders import expected_cell, run, share


def asked(id: str, outcome: ClaimOutcome, tested: str = "a < b", **fields: Any) -> ClaimReport:
    defaults: dict[str, Any] = {
        "kind": "order",
        "sentence": "It works.",
        "place": "doc",
        "primary": True,
        "cells": [],
        "detail": "p = 0.2",
    }
    return ClaimReport(id=id, outcome=outcome, tested=tested, **defaults | fields)


def verdict(*claims: ClaimReport, **fields: Any) -> Verdict:
    made = run([expected_cell()], [share("t/a", 10, 208)])
    plain: dict[str, Any] = {"headline": "PARTIALLY", "reasons": [], "caveats": [], "blind": None}
    return structs.replace(made, claims=list(claims), **plain | fields)


def screen(made: Verdict, path: str = "") -> list[str]:
    return [line for line, _ in ending(made, path)]


@pytest.mark.parametrize("path", ["", "runs/e/report.html"])
@pytest.mark.parametrize("good", [0, 1, 12])
@pytest.mark.parametrize("bad", [1, 2, 8, 9, 11, 12, 13, 14, 15, 20])
def test_claims_are_shown_while_there_is_room_and_counted_after(
    bad: int, good: int, path: str
) -> None:
    """No line is wasted: what is counted would not have had room."""
    claims = [asked(f"g{i}", "holds", f"good{i}") for i in range(good)]
    claims += [asked(f"b{i}", "undetermined", f"bad{i}") for i in range(bad)]
    said = screen(verdict(*claims), path)
    room = HEIGHT - 1 - bool(path)
    shown = [line for line in said if line.startswith("  open: bad")]
    more = [int(n) for line in said for n in re.findall(r"^  and (\d+) more", line)]
    if good + bad <= MOST_CLAIMS:
        assert len(shown) == bad
        assert sum(line.startswith("  holds: good") for line in said) == good
        assert len(said) == 1 + good + bad + bool(path)
        return
    counted = [line for line in said if re.match(r"  \d+ primary claims? holds?$", line)]
    assert len(counted) == (good > 0)
    assert all(int(line.split()[0]) == good for line in counted)
    assert len(shown) + sum(more) == bad
    assert bool(more) == (len(counted) + bad > room)
    assert len(said) == (HEIGHT if more else 1 + len(counted) + bad + bool(path))


@pytest.mark.parametrize("reasons", [0, 1, 4, 5, 9])
@pytest.mark.parametrize("caveats", [[], ["small"]])
def test_reasons_and_caveats_leave_the_rest_of_the_screen_to_claims(
    reasons: int, caveats: list[str]
) -> None:
    """Reasons take a third of the screen at most; claims that just fit are all shown."""
    said = {"reasons": [f"t/{i} is missing" for i in range(reasons)], "caveats": caveats}
    room = HEIGHT - 1 - min(reasons, HEIGHT // 3) - len(caveats)
    many = verdict(*(asked(str(i), "fails") for i in range(20)), **said)
    assert len(screen(many)) == HEIGHT
    assert sum("is missing" in line for line in screen(many)) == min(reasons, HEIGHT // 3)
    assert [line for line in screen(many) if "more in the report" in line] == [
        f"  and {20 - room + 1} more in the report"
    ]
    few = min(room, MOST_CLAIMS)
    claims = [asked(str(i), "fails") for i in range(few - 1)]
    fitting = screen(verdict(*claims, asked("good", "holds", "good"), **said))
    assert sum(line.startswith("  fails:") for line in fitting) == few - 1
    assert "  holds: good" in fitting


def test_many_claims_that_all_hold_are_in_the_headline_alone() -> None:
    held = [asked(str(i), "holds") for i in range(MOST_CLAIMS + 1)]
    assert screen(verdict(*held)) == ["PARTIALLY"]
    assert len(screen(verdict(*held[1:]))) == 1 + MOST_CLAIMS


def test_what_fails_stands_first_and_what_is_not_primary_not_at_all() -> None:
    claims = [
        asked("a", "holds", "first"),
        asked("b", "undetermined", "second", needed="more seeds"),
        asked("c", "fails", "third"),
        asked("d", "not-evaluated", "", detail="no cell"),
        asked("e", "fails", "fifth", primary=False),
    ]
    assert ending(verdict(*claims))[1:] == [
        ("  fails: third", "fails"),
        ("  open: second (more seeds)", "open"),
        ("  not evaluated: It works: no cell", "not evaluated"),
        ("  holds: first", "holds"),
    ]


def test_long_claims_are_wrapped_between_words_and_never_before_a_percent_sign() -> None:
    words = "state-of-the-art defence keeps 5 % of well-known attacks "
    for shift in range(12):
        said = screen(verdict(asked("a", "fails", "x" * shift + words * 4)))[1:]
        assert len(said) > 2
        assert all(len(line) <= WIDTH and not line.lstrip().startswith("%") for line in said)
        assert [line.startswith("    ") for line in said] == [False] + [True] * (len(said) - 1)
        assert " ".join(said).split() == ["fails:", *("x" * shift + words * 4).split()]


def test_two_line_claims_are_not_cut_in_the_middle() -> None:
    long = "word " * 20
    said = screen(verdict(*(asked(str(i), "fails", long) for i in range(9))))
    assert len(said) <= HEIGHT
    heads = sum(line.startswith("  fails:") for line in said)
    assert sum(line.startswith("    ") for line in said) == heads
    assert said[-1] == f"  and {9 - heads} more in the report"
    assert heads == (HEIGHT - 2) // 2


def test_reasons_about_primary_claims_are_not_said_twice() -> None:
    kept = ["t/a is missing", "2 primary claims hold, more or less"]
    left = ["fails: c1", "undetermined: c2", "not-evaluated: c3", "2 of 3 primary claims hold"]
    made = verdict(reasons=[*left, *kept])
    assert others(made) == kept
    assert screen(made) == ["PARTIALLY", *(f"  {reason}" for reason in kept)]


def test_caveats_are_counted() -> None:
    assert not any("caveat" in line for line in screen(verdict()))
    assert screen(verdict(caveats=["a"]))[1].startswith("  1 caveat decides")
    assert screen(verdict(caveats=["a", "b"]))[1].startswith("  2 caveats decide")


def test_the_last_line_is_the_report_or_what_to_type() -> None:
    made = verdict()
    assert ending(made, "report.html", "kit report")[-1] == ("report.html", "")
    assert ending(made, "", "kit report")[-1] == ("kit report", "")
    assert ending(made) == [("PARTIALLY", made.verdict)]
    assert screen(structs.replace(made, headline=""))[0] == made.verdict


def cells_of(many: int) -> Verdict:
    cell = verdict().cells[0]
    return verdict(cells=[structs.replace(cell, id=f"t/{i}") for i in range(many)])


@pytest.mark.parametrize(("many", "counted"), [(1, False), (MANY, False), (MANY + 1, True)])
def test_cells_are_counted_only_where_they_are_not_listed(many: int, counted: bool) -> None:
    said = list(lines(cells_of(many)))
    assert sum(line.startswith("cells ") for line in said) == counted
    assert sum(line.startswith("cell ") for line in said) == (0 if counted else many)
    every = list(lines(cells_of(many), every=True))
    assert sum(line.startswith(("cell ", "cells ")) for line in every) == many


def test_a_line_has_what_there_is_of_a_cell() -> None:
    whole = verdict().cells[0]
    for published, value, needed in (("4.8", 4.75, "more"), (None, 0.0, None), ("0", None, None)):
        cell = structs.replace(
            whole, published=published, value=value, needed=needed, detail="equal"
        )
        (said,) = (s for s in lines(verdict(cells=[cell])) if s.startswith("cell "))
        shown = "".join(
            (
                f" published={published}" if published is not None else "",
                f" value={value:g}" if value is not None else "",
                " equal",
                f"; to decide: {needed}" if needed else "",
            )
        )
        assert said == f"cell t/a {cell.verdict}:{shown}"


def test_canaries_that_passed_are_counted_and_those_that_failed_listed() -> None:
    def canary(id: str, passed: bool, detail: str) -> CanaryReport:
        return CanaryReport(id=id, passed=passed, detail=detail, source="built-in")

    canaries = [
        canary("x", True, "first"),
        canary("y", True, "alone"),
        canary("x", True, "second"),
        canary("x", True, "third"),
        canary("z", False, "bad"),
        canary("z", False, "worse"),
    ]
    said = [line for line in lines(verdict(canaries=canaries)) if line.startswith("canary ")]
    assert said == [
        "canary z FAILED: bad",
        "canary z FAILED: worse",
        "canary x ok: first (and 2 more like it)",
        "canary y ok: alone",
    ]


@pytest.mark.parametrize(
    ("tested", "method", "detail", "said"),
    [
        ("a < b", "one-sided t", "rough; one-sided t, p = 0.2", "a < b; one-sided t, p = 0.2"),
        ("", "one-sided t", "rough; one-sided t", "rough; one-sided t"),
        ("a < b", "", "rough", "rough"),
    ],
)
def test_a_claim_is_said_with_its_method_where_both_are_known(
    tested: str, method: str, detail: str, said: str
) -> None:
    for primary, rank in ((True, "primary"), (False, "claim")):
        claim = asked("c", "holds", tested, method=method, detail=detail, primary=primary)
        assert f"{rank} c holds: {said}" in list(lines(verdict(claim)))


def printed(made: Verdict, terminal: bool = False, **asked_for: Any) -> str:
    out = StringIO()
    colours: Literal["standard"] | None = "standard" if terminal else None
    console = Console(file=out, width=WIDTH, force_terminal=terminal, color_system=colours)
    render(made, console, **asked_for)
    return out.getvalue()


def test_lines_come_before_the_end_where_they_are_asked_for() -> None:
    made, path = cells_of(MANY + 1), "p" * (WIDTH + 40)
    end = screen(made, path)
    assert printed(made, path=path).splitlines() == end
    assert printed(made, explain=True, path=path).splitlines() == [*lines(made), *end]
    for explain in (False, True):
        said = printed(made, explain=explain, every=True, path=path).splitlines()
        assert said == [*lines(made, every=True), *end]


def test_lines_are_printed_as_they_are_and_the_end_in_colour() -> None:
    detail = "[bold]5[/bold] of 'this' " + "and that " * 20
    claim = asked("c", "fails", "", detail=detail)
    said = printed(verdict(claim), terminal=True, explain=True).splitlines()
    assert f"primary c fails: {detail}" in said
    assert any(line.startswith("\x1b[31m  fails: It works: [bold]5") for line in said)


def test_characters_that_act_on_a_terminal_are_shown() -> None:
    claim = asked("c", "fails", "", detail="red \x1b[31m")
    made = verdict(claim, terms={"word": "bell \x07"})
    assert not set("\x1b\x07") & set(printed(made, explain=True))
