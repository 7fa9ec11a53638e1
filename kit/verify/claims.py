"""Claims: sentences of a document as something that can fail.

Every kind is a set of one-sided questions about contrasts of cells. A claim holds when it is shown
to hold and fails when it is shown to fail; between the two it is undetermined. The p-values of
primary claims are adjusted together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from msgspec import structs

from kit.errors import InvalidInput
from kit.manifest.expectation_types import Claim
from kit.plural import plural
from kit.results.asks import of_single_curve, split
from kit.verify.censored import Contrast, in_words, values_of
from kit.verify.contrast import contrast
from kit.verify.finding import ALPHA
from kit.verify.measurement import Measurement
from kit.verify.multiple import at_least, holm
from kit.verify.numbers import points, show, show_p
from kit.verify.verdict import CellReport, ClaimOutcome, ClaimReport


@dataclass(frozen=True)
class Evidence:
    """What the measured cells say about a claim.

    Attributes:
        holds: One-sided p that it holds; None when nothing random is recorded.
        fails: One-sided p that it fails; None likewise.
        plain: The outcome when nothing random is recorded.
        estimate: The numbers, in words.
        method: How they were tested.
    """

    holds: float | None
    fails: float | None
    plain: ClaimOutcome | None
    estimate: str
    method: str

    def outcome(self, holds: float | None, fails: float | None) -> ClaimOutcome:
        """The outcome at these (possibly adjusted) p-values."""
        if self.plain is not None:
            return self.plain
        if holds is not None and holds <= ALPHA:
            return "holds"
        return "fails" if fails is not None and fails <= ALPHA else "undetermined"


def claim_cells(claim: Claim) -> list[str]:
    """Ids of every cell a claim looks at, in order, once."""
    return list(dict.fromkeys([*claim.cells, *(cell for pair in claim.pairs for cell in pair)]))


def evaluate(claim: Claim, cells: Mapping[str, Measurement]) -> Evidence:
    """Gather the evidence for a claim over measured cells.

    Args:
        claim: The claim; ``order``, ``threshold``, ``direction``, ``ratio`` or ``within``.
        cells: Measurements by id; must have every cell of the claim, with a value or
            values of its seeds.

    Raises:
        ValueError: The claim is not complete, or its cells have units that do not compare.
    """
    for fault in claim_faults(claim):
        raise ValueError(fault)
    return _KINDS[claim.kind](claim, cells)


def claim_faults(claim: Claim) -> Iterator[str]:
    """What a claim lacks of that which its kind needs."""
    kind, cells = claim.kind, len(claim.cells)
    if kind == "order" and cells < 2:
        yield "order needs at least two cells, smallest first"
    if kind == "threshold" and cells < 1:
        yield "threshold needs cells"
    if kind in ("ratio", "within") and cells != 2:
        yield f"{kind} needs exactly two cells, not {cells}"
    if kind in ("threshold", "ratio") and claim.value is None:
        yield f"{kind} needs 'value'"
    if kind in ("threshold", "ratio", "direction") and claim.side is None:
        yield f"{kind} needs 'side' (at_most or at_least)"
    if kind == "direction":
        if not claim.pairs:
            yield "direction needs pairs [before, after]"
        if any(len(pair) != 2 for pair in claim.pairs):
            yield "a pair is [before, after]"
        needed = claim.at_least_pairs
        if needed is not None and not 1 <= needed <= len(claim.pairs):
            yield f"at_least_pairs is {needed}, there are {plural(len(claim.pairs), 'pair')}"


def _order(claim: Claim, cells: Mapping[str, Measurement]) -> Evidence:
    """Neighbours ``x_(i+1) - x_i >= margin``, smallest first."""
    margin, row = Fraction(claim.margin), [cells[id] for id in claim.cells]
    questions = [contrast(b, a, margin) for a, b in pairwise(row)]
    estimate = " < ".join(f"{cell.id} {_value(cell)}" for cell in row)
    return _combine(questions, estimate, inclusive=margin > 0)


def _threshold(claim: Claim, cells: Mapping[str, Measurement]) -> Evidence:
    """Each cell ``side`` the value."""
    value = Fraction(claim.value or 0)
    questions = [_facing(contrast(cells[id], None, value), claim) for id in claim.cells]
    estimate = ", ".join(f"{id} {_value(cells[id])}" for id in claim.cells)
    return _combine(questions, estimate, inclusive=True)


def _direction(claim: Claim, cells: Mapping[str, Measurement]) -> Evidence:
    """Pairs that move down (``at_most``) or up by at least ``margin``, in enough of the pairs."""
    margin, turned = Fraction(claim.margin), 1 if claim.side == "at_most" else -1
    ordered = [pair[::turned] for pair in claim.pairs]
    questions = [contrast(cells[first], cells[second], margin) for first, second in ordered]
    estimate = ", ".join(
        f"{before} {_value(cells[before])} -> {_value(cells[after])}"
        for before, after in claim.pairs
    )
    return _combine(questions, estimate, inclusive=margin > 0, enough=claim.at_least_pairs)


def _ratio(claim: Claim, cells: Mapping[str, Measurement]) -> Evidence:
    """``a / b side value``, asked as ``a - value * b`` against 0, which needs a positive b."""
    a, b = (cells[id] for id in claim.cells)
    question = _facing(contrast(a, b, Fraction(0), Fraction(claim.value or 0)), claim)
    if a.value is None or b.value is None:
        estimate = f"{a.id} / {b.id} = {_value(a)} / {_value(b)}"
        if any(bounded.value <= 0 for _, bounded in values_of(b)):
            return Evidence(None, None, "undetermined", estimate, "the denominator is 0 or less")
        return _combine([question], estimate, inclusive=True)
    ratio = show(a.value / b.value) if b.value else "undefined"
    estimate = f"{a.id} / {b.id} = {_value(a)} / {_value(b)} = {ratio}"
    if b.value <= 0:
        why = "the denominator is 0" if b.value == 0 else "the denominator is negative"
        return Evidence(None, None, "undetermined", estimate, why)
    return _combine([question], estimate, inclusive=True)


def _within(claim: Claim, cells: Mapping[str, Measurement]) -> Evidence:
    """``|a - b| <= margin`` by two one-sided tests, or one side only when ``side`` is given."""
    margin, (a, b) = Fraction(claim.margin), (cells[id] for id in claim.cells)
    questions = []
    if claim.side != "at_least":
        questions.append(contrast(a, b, margin).flipped())
    if claim.side != "at_most":
        questions.append(contrast(a, b, -margin))
    estimate = f"{a.id} {_value(a)} against {b.id} {_value(b)}"
    if not (a.censored or b.censored):
        gap = contrast(a, b, Fraction(0)).estimate
        estimate += f": {show(gap, signed=True)}{points(a.unit)}"
    return _combine(questions, estimate, inclusive=True)


_KINDS = {
    "order": _order,
    "threshold": _threshold,
    "direction": _direction,
    "ratio": _ratio,
    "within": _within,
}


def _combine(
    questions: Sequence[Contrast], estimate: str, *, inclusive: bool, enough: int | None = None
) -> Evidence:
    """Put the one-sided questions together.

    ``enough`` of n must be above 0 (default all). Questions without noise enter as certain;
    exactly 0 counts as above when ``inclusive``, else as tied.
    """
    n = len(questions)
    enough = n if enough is None else enough
    method = "; ".join(dict.fromkeys(question.method for question in questions))
    plain = all(question.above is None for question in questions)
    above = [_certain(q.estimate, inclusive) if q.above is None else q.above for q in questions]
    below = [(0.0 if q.estimate < 0 else 1.0) if q.below is None else q.below for q in questions]
    holds, fails = at_least(above, enough), at_least(below, n - enough + 1)
    if not plain:
        return Evidence(holds, fails, None, estimate, method)
    outcome: ClaimOutcome = "holds" if holds == 0 else "fails" if fails == 0 else "undetermined"
    return Evidence(None, None, outcome, estimate, method)


def _certain(estimate: Fraction, inclusive: bool) -> float:
    return 0.0 if estimate > 0 or (inclusive and estimate == 0) else 1.0


def _facing(question: Contrast, claim: Claim) -> Contrast:
    return question if claim.side == "at_least" else question.flipped()


def _value(cell: Measurement) -> str:
    if cell.censored:
        return f"({in_words(cell)})"
    assert cell.value is not None
    text = show(cell.value)
    return f"{text} %" if cell.unit == "percent" else text


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


def asked(claim: Claim, unit: str = "number") -> str:
    """What a claim asks of its cells beyond their order; empty when that is all.

    Args:
        claim: The claim.
        unit: Of its cells.
    """
    side = {"at_least": "at least ", "at_most": "at most "}.get(claim.side or "", "")
    if claim.kind == "threshold":
        return f"{side}{claim.value}{' %' if unit == 'percent' else points(unit)} asked"
    if claim.kind == "ratio":
        return f"{side}{claim.value} asked"
    if claim.kind == "within":
        way = {"at_least": " below", "at_most": " above"}.get(claim.side or "", " apart")
        return f"at most {claim.margin}{points(unit)}{way} asked"
    apart = f"at least {claim.margin}{points(unit)} apart" if Fraction(claim.margin) else ""
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
    evidence = evaluate(claim, measured)
    once = [
        id
        for id in claim_cells(claim)
        if len(measured[id].seeds) < 2 and (reports[id].kind == "seeds" or of_single_curve(id))
    ]
    if not once:
        return evidence
    why = f"one run of {once[0]}, which is measured over seeds: nothing says how they spread"
    return Evidence(None, None, "undetermined", evidence.estimate, why)


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
    question = asked(claim, reports[cells[0]].unit)
    detail = "; ".join(filter(None, (evidence.estimate, question, evidence.method)))
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
