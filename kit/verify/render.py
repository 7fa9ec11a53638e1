"""A verdict on a terminal: a table at 80 columns, or plain greppable lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kit.verify.numbers import show
from kit.verify.verdict import CellReport, Verdict

COLOURS = {
    "match": "green",
    "reproduced": "green",
    "holds": "green",
    "REPRODUCED": "bold green",
    "inconclusive": "yellow",
    "undetermined": "yellow",
    "PARTIALLY": "bold yellow",
    "INCOMPLETE": "bold yellow",
    "REHEARSED": "bold cyan",
    "deviates": "red",
    "fails": "red",
    "NOT REPRODUCED": "bold red",
    "invalid": "bold magenta",
    "missing": "magenta",
}


def lines(verdict: Verdict) -> Iterable[str]:
    """One line a cell, claim, canary and table; the first word says which."""
    for canary in verdict.canaries:
        state = "ok" if canary.passed else "FAILED"
        yield f"canary {canary.id} {state}: {canary.detail}"
    for cell in verdict.cells:
        said = f" published={cell.published}" if cell.published is not None else ""
        here = f" value={show(cell.value)}" if cell.value is not None else ""
        yield f"cell {cell.id} {word(cell)}:{said}{here} {cell.detail}{_needed(cell)}"
    for line in verdict.omnibus:
        yield f"table {line.table}: {line.sentence}"
    for claim in verdict.claims:
        rank = "primary" if claim.primary else "claim"
        yield f"{rank} {claim.id} {claim.outcome}: {claim.detail}"
    yield f"verdict {headline(verdict)}"


def headline(verdict: Verdict) -> str:
    """Verdict, marks and reasons in one line."""
    marks = [
        *(["modified"] if verdict.modified else []),
        *(["not run here"] if verdict.not_run_here else []),
    ]
    marked = f" ({', '.join(marks)})" if marks else ""
    return f"{verdict.verdict}{marked}: {'; '.join(verdict.reasons)}"


def word(cell: CellReport) -> str:
    """The cell's verdict, with its waiver beside it."""
    if cell.waiver is None:
        return cell.verdict
    by = f"{cell.waiver.reason}, {cell.waiver.owner}, {cell.waiver.date}"
    return f"{cell.verdict} (waived: {by})"


def _needed(cell: CellReport) -> str:
    return f"; to decide: {cell.needed}" if cell.needed else ""


def render(verdict: Verdict, console: Console, every: bool = False) -> None:
    """Print the verdict: a table on a terminal, :func:`lines` elsewhere.

    Args:
        verdict: What to print.
        console: Where to.
        every: Explain every cell, not only those that need explaining.
    """
    if not console.is_terminal:
        for line in lines(verdict):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    console.print(_cells(verdict))
    quiet = ("match", "reproduced", "not-compared")
    for cell in verdict.cells:
        if every or cell.verdict not in quiet or cell.shifted:
            console.print(_line(cell.id, word(cell), cell.verdict, cell.detail + _needed(cell)))
    for table in verdict.omnibus:
        console.print(
            Text(f"{table.table}: {table.sentence}", "yellow" if table.exceeds else "dim")
        )
    for canary in verdict.canaries:
        if not canary.passed:
            console.print(_line(f"canary {canary.id}", "FAILED", "invalid", canary.detail))
    for claim in verdict.claims:
        mark = "* " if claim.primary else "  "
        console.print(_line(mark + claim.id, claim.outcome, claim.outcome, claim.detail))
    console.print(Text(headline(verdict), COLOURS[verdict.verdict]))


def _line(name: str, says: str, colour: str, detail: str) -> Text:
    return Text.assemble(name, " ", (says, COLOURS.get(colour, "")), f": {detail}")


def _cells(verdict: Verdict) -> Table:
    counts = Counter(cell.verdict for cell in verdict.cells)
    table = Table(
        title=f"{verdict.experiment} ({verdict.profile}): "
        + ", ".join(f"{count} {kind}" for kind, count in counts.items()),
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("cell", overflow="fold", ratio=4)
    table.add_column("published", justify="right", no_wrap=True)
    table.add_column("here", justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("difference (95 %)", justify="right", overflow="fold", ratio=3)
    table.add_column("verdict", no_wrap=True)
    for cell in verdict.cells:
        n = f"{cell.n:,}" if cell.n else ""
        table.add_row(
            cell.id,
            cell.published or (show(cell.baseline) if cell.baseline is not None else "-"),
            show(cell.value) if cell.value is not None else "-",
            f"{cell.seeds}x{n}" if cell.seeds else n,
            _difference(cell),
            Text(cell.verdict + ("*" if cell.waiver else ""), COLOURS.get(cell.verdict, "")),
        )
    return table


def _difference(cell: CellReport) -> str:
    if cell.difference is None:
        return ""
    text = show(cell.difference, signed=True)
    if cell.interval is None:
        return text
    return f"{text} [{_short(cell.interval.low)}, {_short(cell.interval.high)}]"


def _short(value: float) -> str:
    return f"{value:+.2g}"
