"""Which figures a report has, and what stands under them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from msgspec import Struct

from kit.manifest.expectation_types import ExpectedCell
from kit.plural import plural
from kit.report.cells import SEVERITY
from kit.report.expected_points import expected_points
from kit.report.figures.cache import drawn
from kit.report.figures.calibration import ENOUGH, calibration
from kit.report.figures.curves import curve, remarks_on
from kit.report.figures.forest import LIMIT, ForestRow, forest
from kit.report.text import unit_word
from kit.results.types import Results
from kit.verify.verdict import CellReport, Verdict

_POSSIBLE = {"percent": (0.0, 100.0), "fraction": (0.0, 1.0)}
MOST_FORESTS = 8
SVG_BYTES = 180_000
"""For all curves together, and again for all forest plots."""


class Picture(Struct, kw_only=True):
    """A figure with its caption."""

    title: str
    caption: str
    svg: str
    """Markup made by :mod:`kit.report.figures`, every label escaped there."""
    wide: bool = True


def forests(verdict: Verdict, expected: Mapping[str, ExpectedCell]) -> tuple[list[Picture], str]:
    """One forest plot per table and unit, and a remark on those that were left out."""
    groups: dict[tuple[str, str], list[CellReport]] = {}
    for cell in verdict.cells:
        known = expected.get(cell.id)
        compared = _number(cell) is not None or (known is not None and known.reference is not None)
        if cell.value is not None and compared:
            groups.setdefault((cell.table, cell.unit), []).append(cell)
    ranked = sorted(groups, key=lambda key: min(SEVERITY[c.verdict] for c in groups[key]))
    chosen = set(ranked[:MOST_FORESTS])
    made: list[Picture] = []
    room = SVG_BYTES
    for i, ((table, unit), cells) in enumerate(groups.items()):
        if (table, unit) in chosen and room > 0:
            made.append(_forest(f"forest-{i}", table, unit, cells, expected))
            room -= len(made[-1].svg)
    left = plural(len(groups) - len(made), "further table")
    remark = f"{left} would make a figure; those with the gravest verdicts are drawn."
    return made, remark if len(groups) > len(made) else ""


def _forest(
    name: str,
    table: str,
    unit: str,
    cells: list[CellReport],
    expected: Mapping[str, ExpectedCell],
) -> Picture:
    worst = sorted(range(len(cells)), key=lambda i: SEVERITY[cells[i].verdict])[:LIMIT]
    shown = [cells[i] for i in sorted(worst)]
    rows = [_forest_row(cell, expected.get(cell.id)) for cell in shown]
    caption = plural(len(cells), "cell") + (f" ({unit_word(unit)})." if unit_word(unit) else ".")
    if any(row.reference is not None for row in rows):
        caption += " The line below a row is the range of the kit\u2019s reference runs."
    if len(shown) < len(cells):
        caption += f" The {LIMIT} gravest of {len(cells)} cells are drawn."
    svg = drawn(forest, name, unit, rows)
    return Picture(title=table, caption=caption, svg=svg)


def _forest_row(cell: CellReport, expected: ExpectedCell | None) -> ForestRow:
    published = _number(cell)
    zone = None
    if published is not None and cell.margin is not None and cell.kind != "bound":
        width = cell.margin * abs(published) if cell.kind == "relative" else cell.margin
        lowest, highest = _POSSIBLE.get(cell.unit, (-math.inf, math.inf))
        zone = (max(lowest, published - width), min(highest, published + width))
    reference = None
    if expected is not None and expected.reference is not None and expected.reference.values:
        values = [float(value) for value in expected.reference.values]
        reference = (min(values), max(values))
    interval = cell.value_interval
    return ForestRow(
        name=cell.title or cell.id.removeprefix(f"{cell.table}/"),
        verdict=cell.verdict,
        published=published,
        zone=zone,
        reference=reference,
        value=cell.value,
        interval=(interval.low, interval.high) if interval is not None else None,
    )


def _number(cell: CellReport) -> float | None:
    try:
        return float(cell.published) if cell.published is not None else None
    except ValueError:
        return None


def curves(
    results: Results | None, expected: Mapping[str, ExpectedCell]
) -> tuple[list[Picture], str]:
    """Every series of the results, as far as the room reaches, and a remark on the rest."""
    made: list[Picture] = []
    room = SVG_BYTES
    if results is None:
        return [], ""
    series = results.series
    for i, each in enumerate(series):
        marks = expected_points(each, expected, results.cells)
        name, remarks = f"curve-{i}", remarks_on(each, marks)
        svg = drawn(curve, name, each, marks)
        room -= len(svg)
        if room < 0:
            left = len(series) - i
            return made, f"{plural(left, 'further series', 'further series')} in results.json."
        made.append(Picture(title=each.title or each.id, caption=" ".join(remarks), svg=svg))
    return made, ""


def calibration_picture(verdict: Verdict) -> tuple[Picture | None, str]:
    """The calibration figure, or the sentence that says why there is none."""
    scores = [cell.z for cell in verdict.cells if cell.z is not None]
    if len(scores) < ENOUGH:
        return None, (
            f"{plural(len(scores), 'cell')} of this run "
            f"{'has' if len(scores) == 1 else 'have'} a noise model; "
            f"fewer than {ENOUGH} show nothing about calibration."
        )
    caption = (
        f"Normal scores of {plural(len(scores), 'cell')}, sorted, against those expected if every "
        "difference were noise (dashed). Cells share models and prompts, so they are not "
        "independent: read this as a flag, not as a test. A line off the diagonal to one side is "
        "a shift that no single cell shows. Shaded: \u00b11.96."
    )
    svg = drawn(calibration, scores)
    return Picture(title="Calibration", caption=caption, svg=svg, wide=False), ""
