"""``kit verify --selftest``: does the verifier see what it should, and cry wolf as rarely as said?

Every comparable cell is redrawn at the published truth (false alarms) and at truths shifted by one
and two margins (detections), and is altered the way tables go wrong. What comes of it is one screen
of what is caught where, or a line a cell.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import isnan

from msgspec import Struct, structs

from kit.errors import KitError
from kit.manifest.expectation_types import ExpectedCell
from kit.plural import plural
from kit.results.asks import with_answers
from kit.verify.cells import judge
from kit.verify.core import Subject, verify
from kit.verify.finding import Finding
from kit.verify.measurement import Measurement, measure
from kit.verify.numbers import points, show, some
from kit.verify.plants import STRUCTURAL
from kit.verify.simulate import experiment
from kit.verify.tampered import Outcome

TRIALS = 200
DETECTED = frozenset({"deviates", "invalid"})
NOTHING = "none"
"""The plant that alters nothing: what it finds are false alarms."""


class PlantReport(Struct, frozen=True, kw_only=True):
    """One kind of deviation planted into one cell."""

    cell: str
    kind: str
    plant: str
    size: float = 0.0
    """Of the planted error, in the cell's unit; 0 where it is none, or a slip of another kind."""
    unit: str
    trials: int
    found: int
    theory: float | None = None
    """Probability of a shown difference by normal theory."""

    @property
    def rate(self) -> float:
        """Share of the trials in which the verdict was ``deviates`` or ``invalid``."""
        return self.found / self.trials


class SelfTest(Struct, frozen=True, kw_only=True):
    """The outcome over all cells."""

    experiment: str
    profile: str
    trials: int
    reports: list[PlantReport]
    untested: list[str]
    """Cells that were not measured, or have nothing to compare."""
    tampered: list[Outcome] = []
    """Copies of the run directory that say what is not so."""


def selftest(subject: Subject, trials: int = TRIALS, seed: int = 0) -> SelfTest:
    """Plant deviations into every cell and count how many are found.

    Args:
        subject: A run and its expectation; not altered.
        trials: Random redraws a cell and truth.
        seed: Of the random generator.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    reports: list[PlantReport] = []
    untested: list[str] = []
    by_id, _ = with_answers(subject.results, [cell.id for cell in subject.expected.cells])
    answered = structs.replace(subject.results, cells=list(by_id.values()))
    subject = replace(subject, results=answered)
    for expected in subject.expected.cells:
        raw = by_id.get(expected.id)
        if raw is None or raw.not_run is not None or expected.tolerance is None:
            untested.append(expected.id)
            continue
        series = subject.results.series
        cell = measure(raw, expected.unit, subject.where, subject.labels, series)
        if cell.value is None:
            untested.append(expected.id)
            continue
        reports += _random_plants(subject, expected, cell, trials, random)
        reports += _structural_plants(subject, expected)
    return SelfTest(
        experiment=subject.expected.experiment,
        profile=subject.expected.profile,
        trials=trials,
        reports=reports,
        untested=untested,
    )


def _random_plants(
    subject: Subject, expected: ExpectedCell, cell: Measurement, trials: int, random: object
) -> Iterable[PlantReport]:
    rule = expected.tolerance
    assert rule is not None

    known: dict[Measurement, Finding] = {}

    def compare(drawn: Measurement) -> Finding:
        if drawn not in known:
            known[drawn] = judge(expected, drawn, subject.published, subject.expectation)
        return known[drawn]

    for times in (0, 1, 2):
        shift = times * _step(expected, cell)
        plan = experiment(expected, cell, compare, shift)
        if plan is None:
            return
        count = 1 if isnan(plan.power) else trials
        hits = sum(plan.draw(random).verdict in DETECTED for _ in range(count))
        name = f"shift {show(shift, signed=True)}{points(expected.unit)}" if times else NOTHING
        yield PlantReport(
            cell=expected.id,
            kind=rule.kind,
            plant=name,
            size=abs(shift),
            unit=expected.unit,
            trials=count,
            found=hits,
            theory=None if isnan(plan.power) else plan.power,
        )


def _step(expected: ExpectedCell, cell: Measurement) -> float:
    """The size of a planted shift: the margin, towards where there is room."""
    rule = expected.tolerance
    assert rule is not None
    base = abs(float(expected.value or 0))
    whole = {"percent": 100.0, "fraction": 1.0}.get(expected.unit)
    if rule.kind == "bound":
        edge = float(rule.bound or 0)
        size = 0.05 * (whole or max(1.0, abs(edge)))
        return size if rule.side == "at_most" else -size
    size = float(rule.margin or 0)
    if rule.kind == "relative":
        size = max(size * base, float(rule.floor or 0))
    size = size or 0.1 * (base or 1.0)
    if rule.kind in ("absolute", "relative"):
        size *= 1.5
    return -size if whole is not None and base + 2 * size > whole else size


def _structural_plants(subject: Subject, expected: ExpectedCell) -> Iterable[PlantReport]:
    assert expected.tolerance is not None
    for name, plant in STRUCTURAL.items():
        altered = plant(subject, expected.id)
        if altered is None:
            continue
        own = [cell for cell in altered.results.cells if cell.id == expected.id]
        single = replace(
            altered,
            expected=structs.replace(subject.expected, cells=[expected], claims=[]),
            results=structs.replace(altered.results, cells=own, canaries=[]),
        )
        yield PlantReport(
            cell=expected.id,
            kind=expected.tolerance.kind,
            plant=name,
            unit=expected.unit,
            trials=1,
            found=int(_detected(single)),
        )


def _detected(subject: Subject) -> bool:
    """A refused table counts: nobody can overlook exit code 4."""
    try:
        return verify(subject).cells[0].verdict in DETECTED
    except KitError:
        return True


WIDTH, HEIGHT = 80, 24
SEEN = 0.8
"""An error is seen in a cell that is said to deviate in so many of its redraws."""
_COLUMNS = "{:<22}{:>6}{:>20}{:>10}{:>10}{:>12}"


def screen(outcome: SelfTest) -> list[str]:
    """The outcome in at most :data:`HEIGHT` lines of at most :data:`WIDTH` columns."""
    errors, slips, alarms = _sorted(outcome.reports)
    blind = [id for id, reports in errors.items() if not _seen(reports)]
    rest = []
    if blind:
        rest += _wrapped(f"Cannot be seen here: errors of two margins in {some(blind, 2)}")
    if alarms:
        hits, trials = sum(r.found for r in alarms), sum(r.trials for r in alarms)
        rest += _wrapped(f"False alarms: {hits} of {trials} redraws ({_percent(hits / trials)})")
    for name, reports in slips.items():
        hits = sum(report.found for report in reports)
        missed = f", cannot be seen in {len(reports) - hits}" if hits < len(reports) else ""
        rest.append(f"  {name}: caught in {hits} of {len(reports)} cells{missed}")
    if outcome.tampered:
        through = [tampering.name for tampering in outcome.tampered if tampering.caught is False]
        caught = sum(tampering.caught is True for tampering in outcome.tampered)
        rest += _wrapped(
            f"Copies of the run that say what is not so: {caught} of {caught + len(through)} caught"
            + (f"; NOT CAUGHT: {some(through, 4)}" if through else "")
        )
    if outcome.untested:
        untested = plural(len(outcome.untested), "cell")
        rest += _wrapped(f"{untested} not tested: not measured, or not compared")
    rest.append("--all has a line a cell, --json everything")
    if not errors:
        return ["no cell can be redrawn", *rest]
    head = f"{plural(len(errors), 'cell')}, redrawn {outcome.trials} times at the published truth"
    return [f"{head} and beside it:", *_errors(errors, HEIGHT - len(rest) - 2), *rest]


def _sorted(
    reports: Sequence[PlantReport],
) -> tuple[dict[str, list[PlantReport]], dict[str, list[PlantReport]], list[PlantReport]]:
    """Errors of a size by cell, slips by their name, and what should not be found."""
    errors: dict[str, list[PlantReport]] = {}
    slips: dict[str, list[PlantReport]] = {}
    for report in reports:
        if report.size:
            errors.setdefault(report.cell, []).append(report)
        elif report.plant != NOTHING:
            slips.setdefault(report.plant, []).append(report)
    return errors, slips, [report for report in reports if report.plant == NOTHING]


def _seen(reports: Sequence[PlantReport]) -> list[float]:
    return [report.size for report in reports if report.rate >= SEEN]


def _errors(errors: dict[str, list[PlantReport]], most: int) -> Iterable[str]:
    """A line a metric, the rarest together: the size of the error, and in how many cells seen."""
    metrics: dict[tuple[str, str], list[list[PlantReport]]] = {}
    for id, reports in errors.items():
        parts = id.split("/")
        metrics.setdefault((parts[min(1, len(parts) - 1)], reports[0].unit), []).append(reports)
    if len(metrics) > most:
        largest = sorted(metrics, key=lambda name: -len(metrics[name]))[: most - 1]
        others = [cell for name, cells in metrics.items() if name not in largest for cell in cells]
        metrics = {name: metrics[name] for name in largest} | {("others", "-"): others}
    yield _COLUMNS.format("metric", "cells", "error", "seen in", "twice it", "not seen")
    for (metric, unit), cells in metrics.items():
        sizes = sorted({reports[0].size for reports in cells})
        text = show(sizes[0]) + (f" to {show(sizes[-1])}" if sizes[1:] else "") + points(unit)
        once, twice = (sum(reports[at].rate >= SEEN for reports in cells) for at in (0, -1))
        never = sum(not _seen(reports) for reports in cells)
        row = (metric[:21], len(cells), "of all sizes" if unit == "-" else text, once, twice, never)
        yield _COLUMNS.format(*row)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def lines(outcome: SelfTest) -> Iterable[str]:
    """One line a cell, then one a copy of the run."""
    cells: dict[str, list[PlantReport]] = {}
    for report in outcome.reports:
        cells.setdefault(report.cell, []).append(report)
    for id, reports in cells.items():
        yield f"selftest {id} {reports[0].kind}: {'; '.join(_words(r) for r in reports)}"
    for id in outcome.untested:
        yield f"selftest {id}: not tested, nothing to compare"
    for tampering in outcome.tampered:
        word = "caught" if tampering.caught else "NOT CAUGHT"
        says = (
            f"{word} ({tampering.says})" if tampering.caught is not None else "nothing to do it to"
        )
        yield f"selftest run, {tampering.name}: {says}"


def _words(report: PlantReport) -> str:
    if report.trials == 1 and report.plant == NOTHING:
        return "FALSE ALARM" if report.found else "no false alarm"
    if report.trials == 1 and report.theory is None:
        return f"{report.plant} {'caught' if report.found else 'cannot be seen here'}"
    name = "false alarms" if report.plant == NOTHING else report.plant
    theory = "" if report.theory is None else f" (theory {_percent(report.theory)})"
    return f"{name} {_percent(report.rate)}{theory}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
