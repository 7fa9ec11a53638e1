"""Evidence about every claim, adjusted over the primary ones, as it stands in the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from msgspec import structs

from kit.errors import InvalidInput
from kit.manifest.expectation_types import Claim
from kit.results.asks import of_one_curve, split
from kit.verify.claims import Evidence, claim_cells, evaluate
from kit.verify.finding import ALPHA
from kit.verify.measurement import Measurement
from kit.verify.multiple import holm
from kit.verify.numbers import show_p
from kit.verify.verdict import CellReport, ClaimReport

UNMEASURED = frozenset({"quoted", "running", "diverged", "cancelled"})
"""Statuses of cells for which the document has no number of its own."""


def report_claims(
    claims: Sequence[Claim],
    reports: Sequence[CellReport],
    measured: Mapping[str, Measurement],
    expectation: str,
    unanswered: Mapping[str, str],
) -> list[ClaimReport]:
    """Evaluate every claim; primary ones are Holm-adjusted together.

    Args:
        claims: The expectation's claims.
        reports: The cells' reports; what a claim asks of a trajectory stands under the report of
            the trajectory unless it has its own.
        measured: The measurements by cell id.
        expectation: The expectation's file, for messages.
        unanswered: What no trajectory answered, with the reason.

    Raises:
        InvalidInput: A claim is incomplete, or compares units that do not compare.
    """
    by_id = {report.id: report for report in reports}
    for id in {id for claim in claims for id in claim_cells(claim)} - by_id.keys():
        by_id[id] = by_id[split(id)[0]]  # an answer of a trajectory that is listed
    evidence: dict[str, Evidence | str] = {}
    for claim in claims:
        asks = [id for id in claim_cells(claim) if id in unanswered]
        gap = f"{asks[0]}: {unanswered[asks[0]]}" if asks else ""
        gap = gap or _open_cells(claim, by_id, measured)
        try:
            evidence[claim.id] = gap or _evidence(claim, by_id, measured)
        except ValueError as error:
            raise InvalidInput(
                str(error), where=f"{expectation}: claim {claim.id}", path=("claims", claim.id)
            ) from None
    family = [claim.id for claim in claims if claim.primary and _random(evidence[claim.id])]
    held = dict(zip(family, holm([_p(evidence[id], "holds") for id in family]), strict=True))
    failed = dict(zip(family, holm([_p(evidence[id], "fails") for id in family]), strict=True))
    return [
        _claim_report(claim, evidence[claim.id], by_id, held.get(claim.id), failed.get(claim.id))
        for claim in claims
    ]


def asked(claim: Claim) -> str:
    """What a claim asks of its cells beyond their order; empty when that is all."""
    side = {"at_least": "at least ", "at_most": "at most "}.get(claim.side or "", "")
    if claim.kind in ("threshold", "ratio"):
        return f"{side}{claim.value} asked"
    if claim.kind == "within":
        way = {"at_least": " below", "at_most": " above"}.get(claim.side or "", " apart")
        return f"at most {claim.margin}{way} asked"
    apart = f"at least {claim.margin} apart" if Fraction(claim.margin) else ""
    most = claim.at_least_pairs
    enough = f"in {most} of {len(claim.pairs)} pairs" if most else ""
    return f"{', '.join(filter(None, (apart, enough)))} asked" if apart or enough else ""


def _evidence(
    claim: Claim, reports: Mapping[str, CellReport], measured: Mapping[str, Measurement]
) -> Evidence:
    """The evidence; open where a cell that is measured over seeds was measured once.

    The items of one run say nothing about how seeds spread, so dropping seeds must not turn the
    question into an easier one. The maximum or first crossing of one curve is such a run as well.
    """
    found = evaluate(claim, measured)
    once = [
        id
        for id in claim_cells(claim)
        if len(measured[id].seeds) < 2 and (reports[id].kind == "seeds" or of_one_curve(id))
    ]
    if not once:
        return found
    why = f"one run of {once[0]}, which is measured over seeds: nothing says how they spread"
    return Evidence(None, None, "undetermined", found.estimate, why)


def _random(evidence: Evidence | str) -> bool:
    return isinstance(evidence, Evidence) and evidence.holds is not None


def _p(evidence: Evidence | str, side: str) -> float:
    p = getattr(evidence, side)
    assert isinstance(p, float)
    return p


def _open_cells(
    claim: Claim, reports: Mapping[str, CellReport], measured: Mapping[str, Measurement]
) -> str:
    """Why a claim cannot be evaluated; empty when it can."""
    for id in claim_cells(claim):
        report = reports[id]
        if report.verdict == "invalid":
            return f"{id} is invalid: {report.detail}"
        if report.verdict == "not-run":
            return f"{id} was not run: {report.detail}"
        if id not in measured or (measured[id].value is None and not measured[id].censored):
            if id in measured and measured[id].curves:
                return f"{id} is a curve: ask its :end, :max, :min, :area or a first crossing"
            quoted = " (the document quotes it and never measured it)"
            return f"{id} was not measured{quoted if report.status == 'quoted' else ''}"
    return ""


def _claim_report(
    claim: Claim,
    evidence: Evidence | str,
    reports: Mapping[str, CellReport],
    held: float | None,
    failed: float | None,
) -> ClaimReport:
    cells = claim_cells(claim)
    unmeasured = any(reports[id].status in UNMEASURED for id in cells)
    about = ClaimReport(
        id=claim.id,
        kind=claim.kind,
        sentence=claim.sentence,
        place=claim.place,
        primary=claim.primary,
        cells=cells,
        outcome="not-evaluated",
        detail="",
        rests_on_unmeasured=unmeasured,
        reason=claim.reason,
    )
    if isinstance(evidence, str):
        return structs.replace(about, detail=evidence)
    holds = evidence.holds if held is None else held
    fails = evidence.fails if failed is None else failed
    outcome = evidence.outcome(holds, fails)
    detail = "; ".join(filter(None, (evidence.estimate, asked(claim), evidence.method)))
    if holds is not None and fails is not None:
        p = fails if outcome == "fails" else holds
        holm_says = ", Holm" if held is not None else ""
        detail += f" ({show_p(p)}{holm_says}{' that it fails' if outcome == 'fails' else ''}"
        detail += f", {ALPHA:g} needed)" if outcome == "undetermined" else ")"
    if unmeasured:
        detail += "; the document has no number of its own for some cells, this is about the run's"
    return structs.replace(
        about,
        outcome=outcome,
        detail=detail,
        method=evidence.method,
        estimate=evidence.estimate,
        p=evidence.holds,
        p_holm=held,
        p_fails=evidence.fails,
    )
