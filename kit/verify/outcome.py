"""The run verdict: decided by primary claims, never by a count of cells."""

from __future__ import annotations

from collections.abc import Sequence

from kit.plural import plural
from kit.verify.multiple import chance_limit
from kit.verify.numbers import some
from kit.verify.verdict import CellReport, ClaimReport, Omnibus, RunVerdict

NUMBERS_DO_NOT = "claims hold, numbers do not"
"""First reason of a run whose claims survive a shift of the numbers as a whole."""
NOT_WHOLE = "not whole"
"""First words about what a whole run has and this one lacks."""


def decide_run(
    cells: Sequence[CellReport],
    claims: Sequence[ClaimReport],
    rehearsal: bool,
    tables: Sequence[Omnibus] = (),
    *,
    absent: Sequence[str] = (),
    alarms: Sequence[str] = (),
    uncompared: bool = False,
) -> tuple[RunVerdict, list[str]]:
    """The run verdict and its reasons, a sentence each.

    Args:
        cells: Every expected cell.
        claims: Every claim.
        rehearsal: Stand-in weights and data.
        tables: The omnibus lines. Claims may survive a shift of all numbers, so a table in which
            more cells differ than chance explains keeps a run from being reproduced.
        absent: What a whole run has and this one lacks; with any the run is at most incomplete.
        alarms: Failed canaries, those included that spoil no listed cell.
        uncompared: There is no expectation.
    """
    if rehearsal:
        return "REHEARSED", ["stand-in weights and data: the numbers mean nothing"]
    if uncompared:
        missing = [f"{NOT_WHOLE}: {what}" for what in absent]
        return "NOT COMPARED", ["there is no expectation to compare with", *missing, *alarms]
    verdict, reasons = _decide(cells, claims, [*_gaps(cells), *alarms])
    off = [f"{line.table}: {line.sentence}" for line in tables if line.exceeds]
    if off and verdict == "REPRODUCED":
        primary = any(claim.primary for claim in claims)
        first = NUMBERS_DO_NOT if primary else "cells agree one by one, not as a whole"
        verdict, reasons = "PARTIALLY", [f"{first} ({'; '.join(off)})", *reasons]
    else:
        reasons += off
    if absent and verdict != "NOT REPRODUCED":
        verdict = "INCOMPLETE"
    return verdict, [*(f"{NOT_WHOLE}: {what}" for what in absent), *reasons]


def _decide(
    cells: Sequence[CellReport], claims: Sequence[ClaimReport], gaps: list[str]
) -> tuple[RunVerdict, list[str]]:
    """The verdict by claims, or where none is primary by cells."""
    primary = [claim for claim in claims if claim.primary]
    if not primary:
        return _by_cells(cells, gaps)
    failed = [claim.id for claim in primary if claim.outcome == "fails"]
    held = [claim.id for claim in primary if claim.outcome == "holds"]
    still = [claim for claim in primary if claim.outcome not in ("fails", "holds")]
    reasons = [f"{len(held)} of {len(primary)} primary claims hold"]
    if failed:
        reasons.append(f"fails: {', '.join(failed)}")
    reasons += [f"{claim.outcome}: {claim.id}" for claim in still]
    reasons += gaps
    if failed:
        return "NOT REPRODUCED", reasons
    if len(held) == len(primary) and not gaps:
        return "REPRODUCED", reasons
    return ("PARTIALLY" if held else "INCOMPLETE"), reasons


def _gaps(cells: Sequence[CellReport]) -> list[str]:
    """Cells whose absence or breakage keeps a run from being whole."""
    gaps = []
    for kind in ("invalid", "missing"):
        ids = [cell.id for cell in cells if cell.verdict == kind]
        if ids:
            gaps.append(f"{plural(len(ids), 'cell')} {kind}: {some(ids, 5)}")
    return gaps


def _by_cells(cells: Sequence[CellReport], gaps: list[str]) -> tuple[RunVerdict, list[str]]:
    """Without primary claims the cells decide; as many may differ as chance explains."""
    good = [cell for cell in cells if cell.verdict in ("match", "reproduced")]
    still = [cell.id for cell in cells if cell.verdict == "inconclusive"]
    skipped = [cell.id for cell in cells if cell.verdict == "not-run"]
    off = [cell for cell in cells if cell.verdict == "deviates"]
    tested = sum(1 for cell in cells if cell.p is not None)
    by_chance = all(cell.p is not None for cell in off) and len(off) <= chance_limit(tested)
    reasons = ["no primary claims: the cells decide", f"{len(good)} of {len(cells)} agree"]
    if off:
        reasons.append(f"{len(off)} deviate: {some([cell.id for cell in off], 5)}")
    if still:
        reasons.append(f"{len(still)} inconclusive: {some(still, 5)}")
    if skipped:
        reasons.append(f"{len(skipped)} not run: {some(skipped, 5)}")
    reasons += gaps
    if off and not (by_chance and good):
        return "NOT REPRODUCED", reasons
    if not good:
        return "INCOMPLETE", reasons
    return ("PARTIALLY" if off or still or skipped or gaps else "REPRODUCED"), reasons


def uncovered(cells: Sequence[CellReport], claims: Sequence[ClaimReport]) -> list[str]:
    """What the verdict says nothing about."""
    lines = [
        f"cell {cell.id}: {cell.verdict} ({cell.detail})"
        for cell in cells
        if cell.verdict in ("not-run", "not-compared", "missing")
    ]
    lines += [
        f"claim {claim.id}: not evaluated ({claim.detail})"
        for claim in claims
        if claim.outcome == "not-evaluated"
    ]
    return lines
