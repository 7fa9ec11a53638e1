"""A verdict on a terminal: fifteen lines for who waits for it, all of it for who asks.

Where output is no terminal the first word of a line of :func:`lines` says what it is about.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from kit.plural import plural
from kit.verify.numbers import show
from kit.verify.verdict import CellReport, ClaimReport, Verdict
from kit.visible import visible

COLOURS = {
    "holds": "green",
    "REPRODUCED": "bold green",
    "undetermined": "yellow",
    "open": "yellow",
    "PARTIALLY": "bold yellow",
    "INCOMPLETE": "bold yellow",
    "REHEARSED": "bold cyan",
    "NOT COMPARED": "bold cyan",
    "fails": "red",
    "NOT REPRODUCED": "bold red",
    "not evaluated": "magenta",
}
WORDS = {"undetermined": "open", "not-evaluated": "not evaluated"}

WIDTH, HEIGHT = 80, 15
"""What the end of a command may take."""
MOST_CLAIMS = 9
"""Beyond so many primary claims those that hold are counted."""
MANY = 40
"""Beyond so many cells only those that need a reader's eye are printed, unless all are wanted."""
GRAVE = ("deviates", "invalid", "missing")
TERMS = {
    "seed, pair, replicate": "one observation; items of one replicate are never counted as many",
    "holds, fails": "shown at the 5 % level; open: neither is shown",
    "Holm": "p values of primary claims are raised for being several",
    "one-sided t": "the mean over replicates against what is asked, by their spread",
    "reproduced": "a cell that is shown to be equal within its margin; match: equal as printed",
    "95 %": "an interval that misses the truth once in twenty such experiments",
}
"""Words of statistics that a verdict uses."""


def ending(verdict: Verdict, path: str = "", next_step: str = "") -> list[tuple[str, str]]:
    """The verdict in at most :data:`HEIGHT` lines of at most :data:`WIDTH` columns.

    Args:
        verdict: What to print.
        path: Of the report, which ends it.
        next_step: What to type where there is no report yet.

    Returns:
        (line, word that decides its colour).
    """
    head = _wrapped(verdict.headline or verdict.verdict, "", verdict.verdict)
    tail = [(path or next_step, "")] if path or next_step else []
    first = [line for reason in others(verdict) for line in _wrapped(reason, "  ", "open")][:5]
    notes = [(f"  blind: {verdict.blind.words}", "")] if verdict.blind is not None else []
    if verdict.caveats:
        said = plural(len(verdict.caveats), "caveat decides", "caveats decide")
        notes += _wrapped(f"{said} how far this reaches (--explain, or the report)", "  ", "")
    room = HEIGHT - len(head) - len(first) - len(notes) - len(tail)
    return [*head, *first, *_claims(verdict, room), *notes, *tail]


def others(verdict: Verdict) -> list[str]:
    """Reasons of a verdict that are not about its primary claims."""
    about = ("fails: ", "undetermined: ", "not-evaluated: ")
    return [
        reason
        for reason in verdict.reasons
        if not reason.startswith(about) and not reason.endswith("primary claims hold")
    ]


def _claims(verdict: Verdict, room: int) -> list[tuple[str, str]]:
    """A line for each primary claim; those that hold are counted where there is no room."""
    primary = [claim for claim in verdict.claims if claim.primary]
    good = [claim for claim in primary if claim.outcome == "holds"]
    rest = sorted(
        (claim for claim in primary if claim.outcome != "holds"),
        key=lambda claim: claim.outcome != "fails",
    )
    counted = [(f"  {_count(len(good))}", "holds")] if good and rest else []
    every = [line for claim in (*rest, *good) for line in _claim(claim)]
    if len(primary) <= MOST_CLAIMS and len(every) <= room:
        return every
    shown: list[tuple[str, str]] = []
    for i, claim in enumerate(rest):
        lines = _claim(claim)
        if len(counted) + len(shown) + len(lines) + (i + 1 < len(rest)) > room:
            left = len(rest) - i
            return [*counted, *shown, (f"  and {left} more in the report", "open")]
        shown += lines
    return [*counted, *shown]


def _count(number: int) -> str:
    return plural(number, "primary claim holds", "primary claims hold")


def _claim(claim: ClaimReport) -> list[tuple[str, str]]:
    word = WORDS.get(claim.outcome, claim.outcome)
    said = claim.tested or f"{claim.sentence.rstrip('.')}: {claim.detail}"
    needed = f" ({claim.needed})" if claim.needed else ""
    return _wrapped(f"{word}: {said}{needed}", "  ", word)


def _wrapped(text: str, indent: str, word: str) -> list[tuple[str, str]]:
    lines = textwrap.wrap(
        text.replace(" %", "\u00a0%"),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,
    )
    return [(line.replace("\u00a0", " "), word) for line in lines]


def lines(verdict: Verdict, every: bool = False) -> Iterable[str]:
    """One line a cell, claim, canary and table; the first word says which."""
    yield from (f"modified {what}" for what in verdict.overrides)
    yield from [f"blind {verdict.blind.words}"] if verdict.blind is not None else ()
    yield from (f"reason {reason}" for reason in verdict.reasons)
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
        yield f"{rank} {claim.id} {claim.outcome}: {_in_words(claim)}"
    yield from (f"caveat {caveat}" for caveat in verdict.caveats)
    yield from (f"term {word}: {said}" for word, said in (TERMS | verdict.terms).items())
    yield f"verdict {verdict.headline}"


def _in_words(claim: ClaimReport) -> str:
    """What was tested, rounded, and how it was decided, where both are known."""
    if not claim.tested or not claim.method:
        return claim.detail
    return f"{claim.tested}; {claim.method}{claim.detail.partition(claim.method)[2]}"


def shown(verdict: Verdict, every: bool) -> list[CellReport]:
    """The cells to print: all of a small table, of a large one those that need a reader's eye."""
    if every or len(verdict.cells) <= MANY:
        return verdict.cells
    return [cell for cell in verdict.cells if cell.verdict in GRAVE]


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


def _needed(cell: CellReport) -> str:
    return f"; to decide: {cell.needed}" if cell.needed else ""


def render(
    verdict: Verdict,
    console: Console,
    *,
    explain: bool = False,
    every: bool = False,
    path: str = "",
    next_step: str = "",
) -> None:
    """Print the verdict.

    Args:
        verdict: What to print.
        console: Where to.
        explain: Canaries, every claim with its statistics, and what the words mean, before it.
        every: Every cell as well.
        path: Of the report.
        next_step: What to type where there is none.
    """
    verdict = _seen(verdict)
    if explain or every:
        for line in lines(verdict, every):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    said: Sequence[tuple[str, str]] = ending(verdict, path, next_step)
    for line, word in said:
        console.print(Text(line, COLOURS.get(word, "")), soft_wrap=True)


def _seen(verdict: Verdict) -> Verdict:
    """The verdict without characters that act on a terminal; details come from a run's files."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return visible(value)
        if isinstance(value, dict):
            return {key: clean(inner) for key, inner in value.items()}
        return [clean(inner) for inner in value] if isinstance(value, list) else value

    return msgspec.convert(clean(msgspec.to_builtins(verdict)), Verdict)
