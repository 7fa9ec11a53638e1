"""A cell as the report prints it: strings only, so that templates format nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from kit.manifest.expectation_types import ExpectedCell
from kit.plural import plural
from kit.report.text import decimals_of, number, probability
from kit.results.types import Cell
from kit.verify.numbers import places as digits_of
from kit.verify.numbers import points, show
from kit.verify.verdict import CellReport, Interval

SEVERITY = {
    word: rank
    for rank, word in enumerate(
        ("invalid", "missing", "deviates", "inconclusive", "not-run", "not-compared", "reproduced",
         "match")
    )
}  # fmt: skip
"""What a reader must not overlook comes first when space runs out."""
MAX_SEEDS = 20
"""Values of single seeds that are listed."""


class Row(Struct, kw_only=True):
    """One line of a table, and the line under it."""

    anchor: str
    name: str
    """The id without the table's own part."""
    title: str
    published: str
    reference: str
    value: str
    interval: str
    verdict: str
    word: str
    """The verdict as printed: with ``shifted`` where that applies."""
    summary: str
    """How the two numbers compare, as ``kit verify`` says it."""
    facts: list[tuple[str, str]]
    unit: str = ""
    """Named on the line only where the table has several units."""
    detailed: bool = True
    """False where the report had no room for the second line."""
    kept: bool = True
    """False where it had none for the line itself."""


def row(
    cell: CellReport,
    anchor: str,
    expected: ExpectedCell | None = None,
    measured: Cell | None = None,
) -> Row:
    """The printed form of one cell."""
    places = _places(cell)
    published, reference = _compared(cell, expected)
    return Row(
        anchor=anchor,
        name=cell.id.removeprefix(f"{cell.table}/") or cell.id,
        title=cell.title,
        published=published,
        reference=reference,
        value=number(cell.value, places) if cell.verdict != "not-run" else "\u2014",
        interval=span(cell.value_interval, places),
        verdict=cell.verdict,
        word=word(cell),
        summary=cell.detail or cell.status,
        facts=_facts(cell, expected, measured, places),
    )


def _places(cell: CellReport) -> int:
    """Decimals: as printed by the document, else as many as the uncertainty supports."""
    if cell.published is not None and cell.status != "reference":
        return decimals_of(cell.published, cell.unit)
    return _supported(cell.value_interval, cell.unit)


def _supported(interval: Interval | None, unit: str) -> int:
    """Decimals that a number with this interval supports; the unit's habit where nothing is."""
    digits = None if interval is None else digits_of(interval.half, unit)
    return decimals_of(None, unit) if digits is None else digits


def word(cell: CellReport) -> str:
    """The verdict in words, with what qualifies it."""
    if cell.shifted:
        return f"{cell.verdict} (shifted)"
    return cell.verdict.replace("-", " ")


def span(interval: Interval | None, places: int, *, sign: bool = False) -> str:
    """``[low, high]``."""
    if interval is None:
        return "\u2014"
    low, high = (number(v, places, sign=sign) for v in (interval.low, interval.high))
    return f"[{low}, {high}]"


def spread(mean: str, sd: str, unit: str) -> str:
    """``93.2 ± 5.2``: a mean with what its standard deviation supports, two digits of it."""
    size = float(sd)
    digits = digits_of(size, unit)
    if digits is None:
        return number(float(mean), decimals_of(None, unit))
    digits = min(digits, max(len(text.partition(".")[2]) for text in (mean, sd)))
    return f"{number(float(mean), digits)} \u00b1 {number(size, digits)}"


def _compared(cell: CellReport, expected: ExpectedCell | None) -> tuple[str, str]:
    reference = ""
    if expected is not None and expected.reference is not None:
        given = expected.reference
        reference = spread(given.mean, given.sd, cell.unit)
    if cell.status == "reference":
        return "\u2014", reference or (cell.published or "").replace("-", "\u2212") or "\u2014"
    if cell.published is not None:
        return cell.published.replace("-", "\u2212"), reference or "\u2014"
    named = cell.status in ("running", "diverged", "cancelled", "unreported")
    return cell.status if named else "\u2014", reference or "\u2014"


def _facts(
    cell: CellReport, expected: ExpectedCell | None, measured: Cell | None, places: int
) -> list[tuple[str, str]]:
    narrow, flips = cell.interval_equivalence, cell.flip_rate
    facts = [
        ("cell", cell.id),
        ("place", cell.place),
        ("status", cell.status if cell.status != "reported" else ""),
        ("note", expected.note if expected is not None else ""),
        ("compared by", cell.kind or ""),
        ("margin", _margin(cell)),
        ("items", _items(cell)),
        ("seeds", _seeds(cell, measured, places)),
        (
            "90 % interval of the difference",
            span(narrow, _supported(narrow, cell.unit), sign=True) if narrow else "",
        ),
        ("p of no difference", _p(cell)),
        ("labels changed", "" if flips is None else f"{100 * flips:.1f} % of the items"),
        ("would decide it", cell.needed or ""),
        ("measured by", measured.step if measured is not None else ""),
    ]
    return [(name, text) for name, text in facts if text]


def _margin(cell: CellReport) -> str:
    if cell.margin is None:
        return ""
    source = f", chosen by {cell.margin_source}" if cell.margin_source else ""
    reason = f": {cell.margin_reason}" if cell.margin_reason else ""
    return show(cell.margin) + points(cell.unit) + source + reason


def _items(cell: CellReport) -> str:
    if cell.n is None:
        return ""
    return f"{cell.k} of {cell.n}" if cell.k is not None else str(cell.n)


def _seeds(cell: CellReport, measured: Cell | None, places: int) -> str:
    if not cell.seeds:
        return ""
    values = measured.seeds[:MAX_SEEDS] if measured is not None else []
    listed = ", ".join(number(seed.value, places) for seed in values)
    return plural(cell.seeds, "seed") + (f": {listed}" if listed else "")


def _p(cell: CellReport) -> str:
    """Once: the adjusted one where there is one, none where the sentence has it."""
    if cell.p is None or re.search(r"\bp [=<]", cell.detail):
        return ""
    if cell.q is None:
        return probability(cell.p)
    return f"{probability(cell.q)} (Benjamini\u2013Hochberg)"


def gravest_first(words: Mapping[str, int]) -> list[tuple[str, int]]:
    """Counts of verdicts, the gravest first."""
    return sorted(words.items(), key=lambda item: SEVERITY.get(item[0], len(SEVERITY)))
