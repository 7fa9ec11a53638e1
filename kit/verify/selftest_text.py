"""What the self-test says: one screen of what is caught where, or a line a cell."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from kit.verify.numbers import points, show, some
from kit.verify.selftest import NOTHING, PlantReport, SelfTest

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
        rest += _wrapped(f"{len(outcome.untested)} cells not tested: not measured, or not compared")
    rest.append("--all has a line a cell, --json everything")
    if not errors:
        return ["no cell can be redrawn", *rest]
    head = f"{len(errors)} cells, redrawn {outcome.trials} times at the published truth and beside"
    return [f"{head} it:", *_errors(errors, HEIGHT - len(rest) - 2), *rest]


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
