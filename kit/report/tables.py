"""Tables of the report, within a budget of bytes.

A grid of ten thousand cells must still be a file that opens. Where space runs out, the gravest
verdicts keep their line and their details, the others are counted; nothing is left out silently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape

from msgspec import Struct

from kit.manifest.expectation_types import ExpectedCell
from kit.plural import plural
from kit.report.cells import SEVERITY, Row, gravest_first, row
from kit.report.text import unit_word
from kit.results.types import Cell
from kit.verify.verdict import CellReport, Verdict

ROW_BYTES = 1_230_000
DETAIL_BYTES = 220_000
"""For the lines of all tables together, and for what folds out under them."""
LINE_BYTES, FOLD_BYTES, FACT_BYTES = 62, 70, 18
"""Tags about a line, about what folds out under it, and about each fact in that."""


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
    lines = [line for table in made for line in table.rows]
    room, detail_room = ROW_BYTES, DETAIL_BYTES
    for line in sorted(lines, key=lambda line: SEVERITY[line.verdict]):
        room -= LINE_BYTES + _size(
            line.name, line.unit, line.published, line.reference, line.value, line.interval,
            line.word,
        )  # fmt: skip
        line.kept = room >= 0
        cost = FOLD_BYTES + FACT_BYTES * len(line.facts)
        cost += _size(line.title, line.summary, *(text for fact in line.facts for text in fact))
        line.detailed = line.kept and cost <= detail_room
        detail_room -= cost if line.detailed else 0
    for table in made:
        kept = [line for line in table.rows if line.kept]
        table.left_out = len(table.rows) - len(kept)
        table.rows = kept
        table.folded = sum(not line.detailed for line in kept)


def _size(*texts: str) -> int:
    """Bytes of texts on the page, without the tags around them."""
    return sum(len(escape(text).encode("utf-8", "replace")) for text in texts)
