"""``kit verify --selftest``: does the verifier see what it should, and cry wolf as rarely as said?

Every comparable cell is redrawn at the published truth (false alarms) and at truths shifted by one
and two margins (detections), and is altered the way tables go wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import isnan

from msgspec import Struct, structs

from kit.errors import KitError
from kit.manifest.expectation_types import ExpectedCell
from kit.results.asks import with_answers
from kit.verify.cells import judge
from kit.verify.core import Subject, verify
from kit.verify.finding import Finding
from kit.verify.measurement import Measurement, measure
from kit.verify.numbers import points, show
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
    if rule.kind == "relative":
        return max(float(rule.margin or 0) * base, float(rule.floor or 0)) * 1.5
    if rule.kind == "bound":
        edge = float(rule.bound or 0)
        size = 0.05 * (whole or max(1.0, abs(edge)))
        return size if rule.side == "at_most" else -size
    size = float(rule.margin or 0) or 0.1 * (base or 1.0)
    if rule.kind == "absolute":
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
