"""Tables of the report, within a budget of bytes.

A grid of ten thousand cells must still be a file that opens. Where space runs out, the gravest
verdicts keep their line and their details, the others are counted; nothing is left out silently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct

from kit.manifest.expectation_types import ExpectedCell
from kit.report.cells import SEVERITY, Row, gravest_first, row
from kit.report.text import plural, unit_word
from kit.results.types import Cell
from kit.verify.verdict import CellReport, Verdict

ROW_BYTES = 1_230_000
"""For the lines of all tables together."""
DETAIL_BYTES = 220_000
"""For what folds out under the lines."""


class Table(Struct, kw_only=True):
    """The cells that share the first part of their id."""

    name: str
    anchor: str
    unit: str
    rows: list[Row]
    counts: list[tuple[str, int]]
    omnibus: str
    has_published: bool
    has_reference: bool
    left_out: int = 0
    """Lines the report had no room for."""
    folded: int = 0
    """Lines without details for the same reason."""

    @property
    def size(self) -> str:
        """``24 cells``."""
        return plural(len(self.rows) + self.left_out, "cell")

    def gravest(self, most: int) -> list[Row]:
        """At most ``most`` lines in their order, the mildest verdicts left out."""
        ranked = sorted(range(len(self.rows)), key=lambda i: SEVERITY[self.rows[i].verdict])
        return [self.rows[i] for i in sorted(ranked[:most])]


def tables(
    verdict: Verdict, expected: Mapping[str, ExpectedCell], measured: Mapping[str, Cell]
) -> list[Table]:
    """All tables in the order of the verdict."""
    groups: dict[str, list[CellReport]] = {}
    for cell in verdict.cells:
        groups.setdefault(cell.table, []).append(cell)
    anchors = {cell.id: f"c{i}" for i, cell in enumerate(verdict.cells)}
    omnibus = {line.table: line.sentence for line in verdict.omnibus}
    made = []
    for i, (name, cells) in enumerate(groups.items()):
        rows = [row(c, anchors[c.id], expected.get(c.id), measured.get(c.id)) for c in cells]
        units = {cell.unit for cell in cells}
        if len(units) > 1:
            for line, cell in zip(rows, cells, strict=True):
                line.unit = unit_word(cell.unit)
        made.append(
            Table(
                name=name,
                anchor=f"t{i}",
                unit=unit_word(units.pop()) if len(units) == 1 else "several units",
                rows=rows,
                counts=gravest_first(Counter(cell.verdict for cell in cells)),
                omnibus=omnibus.get(name, ""),
                has_published=any(line.published != "\u2014" for line in rows),
                has_reference=any(line.reference != "\u2014" for line in rows),
            )
        )
    _fit(made)
    return made


def _fit(made: list[Table]) -> None:
    """Keep lines and details while they fit, the gravest first."""
    order = sorted(
        (
            (SEVERITY.get(line.verdict, 99), i, j)
            for i, t in enumerate(made)
            for j, line in _lines(t)
        ),
    )
    room, detail_room = ROW_BYTES, DETAIL_BYTES
    dropped: set[tuple[int, int]] = set()
    for _, i, j in order:
        line = made[i].rows[j]
        room -= _row_size(line)
        if room < 0:
            dropped.add((i, j))
            continue
        cost = _detail_size(line)
        if cost <= detail_room:
            detail_room -= cost
        else:
            line.detailed = False
    for i, table in enumerate(made):
        kept = [line for j, line in _lines(table) if (i, j) not in dropped]
        table.left_out = len(table.rows) - len(kept)
        table.rows = kept
        table.folded = sum(not line.detailed for line in kept)


def _lines(table: Table) -> list[tuple[int, Row]]:
    return list(enumerate(table.rows))


def _size(text: str) -> int:
    # Escaping makes a few characters longer; doubling non-ASCII and markup is a safe estimate.
    return len(text.encode("utf-8", "replace")) + 5 * sum(text.count(c) for c in "<>&\"'")


def _row_size(line: Row) -> int:
    texts = (
        line.name,
        line.unit,
        line.published,
        line.reference,
        line.value,
        line.interval,
        line.word,
    )
    return 62 + sum(_size(text) for text in texts)


def _detail_size(line: Row) -> int:
    facts = sum(_size(name) + _size(text) + 18 for name, text in line.facts)
    return 70 + _size(line.summary) + _size(line.title) + facts
