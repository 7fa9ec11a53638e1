"""Numbers that are shifted as a whole although every claim survives."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from rich.console import Console

from kit.verify.outcome import NUMBERS_DO_NOT
from kit.verify.render import lines, render
from kit.verify.verdict import Verdict
from tests.verify.builders import claim, expected_cell, run, share

CELLS, N = 20, 208


@dataclass(frozen=True)
class Plant:
    """What was changed in a table of 20 cells at 20 %, and what must come out.

    Attributes:
        name: What was changed.
        counts: Hits of 208 in each cell.
        word: Run verdict.
        code: Exit code.
        said: Whether the shift is said first.
    """

    name: str
    counts: list[int]
    word: str
    code: int
    said: bool


TRUE = 42  # of 208: 20.2 %
PLANTS = [
    Plant("nothing", [TRUE] * CELLS, "REPRODUCED", 0, False),
    Plant("all rows 8 points lower", [TRUE - 17] * CELLS, "PARTIALLY", 3, True),
    Plant("as many cells as chance explains", [24] * 4 + [TRUE] * 16, "REPRODUCED", 0, False),
    Plant("one cell more than that", [24] * 5 + [TRUE] * 15, "PARTIALLY", 3, True),
    Plant("a claim fails as well", [150] * CELLS, "NOT REPRODUCED", 1, False),
]


def verdict_of(counts: list[int], **fields: bool) -> Verdict:
    cells = [expected_cell(f"t/c{i}", "20.2", n=N) for i in range(CELLS)]
    low = claim("threshold", cells=["t/c0"], value="40", side="at_most")
    return run(cells, [share(f"t/c{i}", k, N) for i, k in enumerate(counts)], [low], **fields)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_shift_is_caught(plant: Plant) -> None:
    verdict = verdict_of(plant.counts)
    assert (verdict.verdict, verdict.exit_code) == (plant.word, plant.code)
    first = next(iter(lines(verdict)))
    assert first.startswith(f"reason {NUMBERS_DO_NOT} (t: ") is plant.said
    assert verdict.reasons[0].startswith(NUMBERS_DO_NOT) is plant.said


def test_a_terminal_says_it_first() -> None:
    console = Console(force_terminal=True, width=200, no_color=True, record=True, quiet=False)
    render(verdict_of([TRUE - 17] * CELLS), console)
    first, second = console.export_text().splitlines()[:2]
    assert first.startswith("PARTIALLY (")
    assert second.strip().startswith(NUMBERS_DO_NOT)


def test_a_rehearsal_stays_one() -> None:
    verdict = verdict_of([TRUE - 17] * CELLS, rehearsal=True)
    assert (verdict.verdict, verdict.exit_code) == ("REHEARSED", 0)
    assert len(verdict.reasons) == 1


def test_without_primary_claims_the_whole_counts_too() -> None:
    """Cells within their margin, each a little off to the same side."""
    many = 20_000
    cells = [expected_cell(f"t/c{i}", "20.00", n=many) for i in range(CELLS)]
    verdict = run(cells, [share(f"t/c{i}", 4_300, many) for i in range(CELLS)])
    assert {cell.verdict for cell in verdict.cells} == {"reproduced"}
    assert (verdict.verdict, verdict.exit_code) == ("PARTIALLY", 3)
    assert verdict.reasons[0].startswith("cells agree one by one, not as a whole (t: 20 of 20")
