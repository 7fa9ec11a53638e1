"""From an expectation and a table to a verdict: canaries, cells, claims, run; in that order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from msgspec import structs

from kit import __version__
from kit.errors import at
from kit.manifest.expectation_types import Claim, Expectation, ExpectedCell
from kit.plural import plural
from kit.results.asks import split, with_answers
from kit.results.labels import LabelSource, LabelTable
from kit.results.record import Blind
from kit.results.types import Cell, Results
from kit.verify.canaries import built_in, from_steps
from kit.verify.cells import judge
from kit.verify.censored import in_words
from kit.verify.claims import asked, claim_cells, report_claims
from kit.verify.derived import recomputed, with_ratios
from kit.verify.finding import Finding
from kit.verify.measurement import Measurement, measure
from kit.verify.multiple import normal_score, omnibus, sides_of, with_q
from kit.verify.numbers import show, some
from kit.verify.outcome import decide_run, uncovered
from kit.verify.preconditions import check_pair
from kit.verify.seeds import baseline
from kit.verify.trajectory import value_interval
from kit.verify.verdict import EXIT_CODES, CellReport, ClaimReport, Verdict
from kit.verify.words import Documents, caveats, decides, published, tested, with_headline

NO_NUMBER = {
    "running": "the document has no final number: running",
    "diverged": "the document has no final number: diverged",
    "cancelled": "the document has no final number: cancelled",
    "unreported": "no number was published",
}
WITHOUT_BASELINE = frozenset({"bound", "trajectory", "paired"})
"""Kinds that compare with something else than one number."""


@dataclass(frozen=True)
class Subject:
    """What is verified, and what is known about how it came about.

    Attributes:
        expected: The expectation.
        results: The table.
        labels: Where the table's labels are.
        published: Where published labels are.
        where: The table's file, for messages.
        expectation: The expectation's file, for messages.
        own_expectation: It was given by name instead of the repository's.
        overrides: What is not as the kit has it; not empty means ``modified``.
        rehearsal: Stand-in weights and data.
        not_run_here: The table was brought from elsewhere.
        scope: What the run's profile speaks of.
        documents: The published numbers and their scale; None where there is no document.
        replicate: What a replicate is called.
        notes: Sentences the verdict repeats.
        absent: What a whole run has and this one lacks, a sentence each.
        blind: That the run was blind.
        uncompared: There is no expectation; ``expected`` lists what was measured.
    """

    expected: Expectation
    results: Results
    labels: LabelSource = field(default_factory=LabelTable)
    published: LabelSource | None = None
    where: str = "results.json"
    expectation: str = "expectation"
    own_expectation: bool = False
    overrides: Sequence[str] = ()
    rehearsal: bool = False
    not_run_here: bool = False
    scope: str = ""
    documents: Documents | None = None
    replicate: str = "seed"
    notes: Sequence[str] = ()
    absent: Sequence[str] = ()
    blind: Blind | None = None
    uncompared: bool = False


def verify(subject: Subject) -> Verdict:
    """The verdict on a table.

    Raises:
        InvalidInput: (or ``Many``) The table or the expectation is not what it must be.
    """
    expected, results = subject.expected, subject.results
    # A table that a run wrote measures more than the document prints; in one by hand it is a slip.
    by_hand = subject.not_run_here and not any(cell.step for cell in results.cells)
    extra = check_pair(expected, results, subject.where, subject.expectation, strict=by_hand)
    listed = [cell.id for cell in expected.cells]
    canaries = from_steps(results, listed) + built_in(expected, results, subject.labels)
    broken: dict[str, str] = {}
    for canary in canaries:
        for id in canary.cells:
            broken.setdefault(id, f"canary {canary.id} failed: {canary.detail}")
    units = units_of(expected)
    table, unanswered = with_answers(results, units)
    units |= {id: table[id].unit for id in _parts(expected) - units.keys() if id in table}
    measured = {
        id: measure(table[id], unit, subject.where, subject.labels, results.series)
        for id, unit in units.items()
        if id in table
    }
    measured, wrong = recomputed(expected, measured, by_hand=subject.not_run_here)
    measured = with_ratios(expected, measured)
    broken |= wrong | unanswered
    for cell in expected.cells:
        spoiled = [id for id in (cell.derived.cells if cell.derived else ()) if id in broken]
        if spoiled:
            broken.setdefault(cell.id, f"computed from {spoiled[0]}: {broken[spoiled[0]]}")
    reports = with_q(
        [
            _report(subject, cell, table.get(cell.id), measured.get(cell.id), broken.get(cell.id))
            for cell in expected.cells
        ]
    )
    claims = [
        _in_words_too(subject, claim, report, measured, units)
        for claim, report in zip(
            expected.claims,
            report_claims(expected.claims, reports, measured, subject.expectation, unanswered),
            strict=True,
        )
    ]
    known = {cell.id: cell.reference for cell in expected.cells}
    tables = omnibus(reports, lambda id: sides_of(measured[id], known[id]))
    alarms = [
        f"canary {canary.id} failed: {canary.detail}" for canary in canaries if not canary.passed
    ]
    verdict, reasons = decide_run(
        reports,
        claims,
        subject.rehearsal,
        tables,
        absent=subject.absent,
        alarms=alarms,
        uncompared=subject.uncompared,
    )
    made = Verdict(
        experiment=expected.experiment,
        profile=expected.profile,
        scope=subject.scope,
        scale=expected.scale,
        caveats=caveats(expected.caveats, claims),
        terms=dict(expected.terms),
        version=expected.version,
        expectation=subject.expectation,
        own_expectation=subject.own_expectation,
        kit_version=__version__,
        verdict=verdict,
        exit_code=EXIT_CODES[verdict],
        modified=bool(subject.overrides),
        overrides=list(subject.overrides),
        blind=subject.blind,
        not_run_here=subject.not_run_here,
        reasons=reasons,
        cells=reports,
        claims=claims,
        canaries=canaries,
        omnibus=tables,
        notes=[*expected.notes, *subject.notes, *_unlisted(extra)],
        not_covered=uncovered(reports, claims),
    )
    return with_headline(made, subject.documents)


def _in_words_too(
    subject: Subject,
    claim: Claim,
    report: ClaimReport,
    measured: Mapping[str, Measurement],
    units: Mapping[str, str],
) -> ClaimReport:
    """The report with what was tested in words, and the published sentence's own status."""
    said = ""
    if report.outcome != "not-evaluated":
        about = asked(claim, units[report.cells[0]])
        said = tested(claim, measured, about, subject.replicate)
    return structs.replace(
        report,
        tested=said,
        published=published(claim, subject.documents) if subject.documents else "",
        needed=decides(report, measured, subject.replicate),
    )


def units_of(expected: Expectation) -> dict[str, str]:
    """Unit of every cell that is compared, and of everything that claims ask of trajectories."""
    units: dict[str, str] = {cell.id: cell.unit for cell in expected.cells}
    for claim in expected.claims:
        for id in claim_cells(claim):
            base, ask = split(id)
            if ask is not None and id not in units:
                units[id] = ask.unit(units[base])
    return units


def _parts(expected: Expectation) -> set[str]:
    """Cells that others are computed from."""
    return {id for cell in expected.cells if cell.derived for id in cell.derived.cells}


def _unlisted(extra: Sequence[str]) -> list[str]:
    said = plural(len(extra), "measured cell is", "measured cells are")
    said += " not in the expectation and not compared"
    return [f"{said}: {some(extra, 5)}"] if extra else []


def _finding(
    subject: Subject,
    expected: ExpectedCell,
    cell: Cell | None,
    measured: Measurement | None,
    broken: str | None,
) -> Finding:
    """Absences first, then preconditions, then the numbers."""
    if cell is not None and cell.not_run is not None:
        return Finding("not-run", cell.not_run)
    if broken is not None and (cell is not None or split(expected.id)[1] is not None):
        return Finding("invalid", broken)
    empty = measured is None or not (
        measured.value is not None or measured.curves or measured.censored
    )
    says = _in_words(measured)
    if expected.status in NO_NUMBER and expected.value is None:
        here = f"; this run has {says}" if says else ""
        return Finding("not-compared", f"{NO_NUMBER[expected.status]}{here}")
    if expected.tolerance is None or (empty and expected.status == "quoted"):
        why = "quoted from elsewhere" if expected.status == "quoted" else "no tolerance is declared"
        return Finding("not-compared", f"{why}{f'; this run has {says}' if says else ''}")
    if empty or measured is None:
        return Finding("missing", "the table has no value for this cell")
    curve = expected.tolerance.kind == "trajectory"
    if curve != bool(measured.curves):
        what = "curve" if curve else "value"
        return Finding("missing", f"the table has no {what} for this cell")
    if baseline(expected) is None and expected.tolerance.kind not in WITHOUT_BASELINE:
        hint = ": kit reference EXP RUN..." if expected.status == "reference" else ""
        return Finding("not-compared", f"no number to compare with yet{hint}; this run has {says}")
    where = f"{subject.expectation}: cell {expected.id}"
    return judge(expected, measured, subject.published, where)


def _in_words(measured: Measurement | None) -> str:
    """The measured number for a sentence; empty for a curve and where there is none."""
    if measured is None:
        return ""
    if measured.censored:
        return in_words(measured)
    return "" if measured.value is None else show(measured.value)


def _report(
    subject: Subject,
    expected: ExpectedCell,
    cell: Cell | None,
    measured: Measurement | None,
    broken: str | None,
) -> CellReport:
    with at("cells", expected.id):
        finding = _finding(subject, expected, cell, measured, broken)
    rule = expected.tolerance
    margin = finding.margin
    if margin is None and rule is not None and rule.margin is not None and rule.kind != "relative":
        margin = float(Fraction(rule.margin))
    table, slash, _ = expected.id.partition("/")
    number = measured.value if measured is not None else None
    return CellReport(
        id=expected.id,
        table=table if slash else "all",
        title=expected.title,
        status=expected.status,
        place=expected.place,
        published=expected.value,
        baseline=_compared_with(expected),
        value=float(number) if number is not None else None,
        unit=expected.unit,
        direction=expected.direction,
        k=measured.k if measured else None,
        n=measured.n if measured else None,
        seeds=_replicates(measured) if measured else 0,
        kind=rule.kind if rule else None,
        difference=finding.difference,
        interval=finding.interval,
        interval_equivalence=finding.interval_equivalence,
        value_interval=value_interval(measured) if measured and number is not None else None,
        margin=margin,
        margin_source=rule.source if rule else None,
        margin_reason=rule.reason if rule else None,
        verdict=finding.verdict,
        detail=finding.detail + _better(expected, finding),
        shifted=finding.shifted,
        flip_rate=finding.flip_rate,
        p=finding.p,
        z=_score(finding),
        needed=finding.needed,
    )


def _replicates(measured: Measurement) -> int:
    """Seeds behind a number or a curve; 0 for what was measured once."""
    return len(measured.seeds) or (len(measured.curves) if len(measured.curves) > 1 else 0)


def _score(finding: Finding) -> float | None:
    """Signed normal score; none where the size of the difference is unknown."""
    if finding.p is None or finding.difference is None:
        return None
    return normal_score(finding.p, finding.difference)


def _better(expected: ExpectedCell, finding: Finding) -> str:
    """Two-sided: a better number than the published one may hide a broken attack."""
    gap = finding.difference or 0.0
    good = {"lower_is_better": gap < 0, "higher_is_better": gap > 0}.get(expected.direction, False)
    says = "; better than published, and a deviation all the same"
    return says if good and finding.verdict == "deviates" else ""


def _compared_with(expected: ExpectedCell) -> float | None:
    said, rule = baseline(expected), expected.tolerance
    if said is not None:
        return float(said.value)
    return float(rule.bound) if rule is not None and rule.bound is not None else None
