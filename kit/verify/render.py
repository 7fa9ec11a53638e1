"""A verdict on a terminal: a table at 80 columns, or plain greppable lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kit.verify.numbers import show
from kit.verify.outcome import NUMBERS_DO_NOT
from kit.verify.verdict import CellReport, Verdict
from kit.visible import visible

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


MANY = 40
"""Beyond so many cells only those that need a reader's eye are printed, unless all are wanted."""
GRAVE = ("deviates", "invalid", "missing")


def lines(verdict: Verdict, every: bool = False) -> Iterable[str]:
    """One line a cell, claim, canary and table; the first word says which."""
    yield from (f"numbers {reason}" for reason in _shift(verdict))
    yield from _canaries(verdict)
    listed = shown(verdict, every)
    if len(listed) < len(verdict.cells):
        yield f"cells {_counts(verdict)}; --all lists them"
    for cell in listed:
        said = f" published={cell.published}" if cell.published is not None else ""
        here = f" value={show(cell.value)}" if cell.value is not None else ""
        yield f"cell {cell.id} {cell.verdict}:{said}{here} {cell.detail}{_needed(cell)}"
    for line in verdict.omnibus:
        yield f"table {line.table}: {line.sentence}"
    for claim in verdict.claims:
        rank = "primary" if claim.primary else "claim"
        yield f"{rank} {claim.id} {claim.outcome}: {claim.detail}"
    yield f"verdict {headline(verdict)}"


def shown(verdict: Verdict, every: bool) -> list[CellReport]:
    """The cells to print: all of a small table, of a large one those that need a reader's eye."""
    if every or len(verdict.cells) <= MANY:
        return verdict.cells
    return [cell for cell in verdict.cells if cell.verdict in GRAVE]


def _shift(verdict: Verdict) -> list[str]:
    """That the numbers are off as a whole although the claims hold: read before anything else."""
    return [reason for reason in verdict.reasons if reason.startswith(NUMBERS_DO_NOT)]


def _canaries(verdict: Verdict) -> Iterable[str]:
    """Failed canaries one by one, passed ones counted by name where there are several."""
    passed: dict[str, list[str]] = {}
    for canary in verdict.canaries:
        if canary.passed:
            passed.setdefault(canary.id, []).append(canary.detail)
        else:
            yield f"canary {canary.id} FAILED: {canary.detail}"
    for id, details in passed.items():
        also = f" (and {len(details) - 1} more like it)" if details[1:] else ""
        yield f"canary {id} ok: {details[0]}{also}"


def _counts(verdict: Verdict) -> str:
    counts = Counter(cell.verdict for cell in verdict.cells)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def headline(verdict: Verdict) -> str:
    """Verdict, marks and reasons in one line."""
    marks = [
        *(["modified"] if verdict.modified else []),
        *(["not run here"] if verdict.not_run_here else []),
    ]
    marked = f" ({', '.join(marks)})" if marks else ""
    return f"{verdict.verdict}{marked}: {'; '.join(verdict.reasons)}"


def _needed(cell: CellReport) -> str:
    return f"; to decide: {cell.needed}" if cell.needed else ""


def render(verdict: Verdict, console: Console, every: bool = False) -> None:
    """Print the verdict: a table on a terminal, :func:`lines` elsewhere.

    Args:
        verdict: What to print.
        console: Where to.
        every: Explain every cell, not only those that need explaining.
    """
    verdict = _seen(verdict)
    if not console.is_terminal:
        for line in lines(verdict, every):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    for reason in _shift(verdict):
        console.print(Text(reason, COLOURS[verdict.verdict]))
    listed = shown(verdict, every)
    console.print(_cells(verdict, listed))
    if len(listed) < len(verdict.cells):
        console.print(Text("--all lists every cell; the report has them, too", "dim"))
    quiet = ("match", "reproduced", "not-compared")
    for cell in listed:
        if every or cell.verdict not in quiet or cell.shifted:
            console.print(_line(cell.id, cell.verdict, cell.verdict, cell.detail + _needed(cell)))
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


def _seen(verdict: Verdict) -> Verdict:
    """The verdict without characters that act on a terminal; details come from a run's files."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return visible(value)
        if isinstance(value, dict):
            return {key: clean(inner) for key, inner in value.items()}
        return [clean(inner) for inner in value] if isinstance(value, list) else value

    return msgspec.convert(clean(msgspec.to_builtins(verdict)), Verdict)


def _line(name: str, says: str, colour: str, detail: str) -> Text:
    return Text.assemble(name, " ", (says, COLOURS.get(colour, "")), f": {detail}")


def _cells(verdict: Verdict, listed: list[CellReport]) -> Table:
    table = Table(
        title=f"{verdict.experiment} ({verdict.profile}): {_counts(verdict)}",
        title_justify="left",
        box=None,
        pad_edge=False,
        show_header=bool(listed),
    )
    table.add_column("cell", overflow="fold", ratio=4)
    table.add_column("published", justify="right", no_wrap=True)
    table.add_column("here", justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("difference (95 %)", justify="right", overflow="fold", ratio=3)
    table.add_column("verdict", no_wrap=True)
    for cell in listed:
        n = f"{cell.n:,}" if cell.n else ""
        table.add_row(
            cell.id,
            cell.published or (show(cell.baseline) if cell.baseline is not None else "-"),
            show(cell.value) if cell.value is not None else "-",
            f"{cell.seeds}x{n}" if cell.seeds else n,
            _difference(cell),
            Text(cell.verdict, COLOURS.get(cell.verdict, "")),
        )
    return table


def _difference(cell: CellReport) -> str:
    if cell.difference is None:
        return ""
    # A reference is printed with twelve digits; what is smaller is that rounding.
    scale = max(1.0, abs(cell.value or 0.0))
    text = show(0.0 if abs(cell.difference) < 1e-9 * scale else cell.difference, signed=True)
    if cell.interval is None:
        return text
    return f"{text} [{_short(cell.interval.low)}, {_short(cell.interval.high)}]"


def _short(value: float) -> str:
    return f"{value:+.2g}"
