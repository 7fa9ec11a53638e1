"""A verdict in words: its scale, what was tested with the measured numbers, what would decide it.

Numbers are rounded to what their uncertainty supports: two significant digits of the half-width of
the 95 % interval.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import structs

from kit.manifest.expectation_types import Claim, Expectation, ExpectedCell
from kit.plural import plural
from kit.verify.censored import in_words
from kit.verify.claims import claim_cells
from kit.verify.finding import ALPHA
from kit.verify.measurement import Measurement
from kit.verify.numbers import rounded
from kit.verify.planning import smallest
from kit.verify.special import t_quantile, t_tail
from kit.verify.trajectory import value_interval
from kit.verify.verdict import ClaimReport, Interval, Verdict

_SUFFIX = {"percent": " %", "seconds": " s", "minutes": " min"}
_NUMBER = re.compile(r"\{([0-9]{1,2})\}")


@dataclass(frozen=True)
class Documents:
    """What the documents printed, at the scale at which they measured it.

    Attributes:
        scale: Of the published numbers.
        here: Whether this very verdict compares with them.
        expected: The expectation that holds them, where there is one.
    """

    scale: str = ""
    here: bool = False
    expected: Expectation | None = None


def in_unit(value: float, interval: Interval | None, unit: str) -> str:
    """The rounded number with its unit."""
    half = 0.0 if interval is None else interval.half
    return rounded(value, half, unit) + _SUFFIX.get(unit, "")


def tested(claim: Claim, cells: Mapping[str, Measurement], asked: str, replicate: str) -> str:
    """What was tested, with the measured numbers; what was asked; how many replicates.

    Args:
        claim: Its ``tested`` has a place for each number; without, the numbers follow its name.
        cells: Measurements of its cells.
        asked: The question in words, where it has a threshold.
        replicate: What a replicate of this experiment is called.
    """
    measured = [cells[id] for id in claim_cells(claim)]
    numbers = [_number(cell) for cell in measured]
    if claim.tested:
        # `kit validate` refuses a number that the claim has not; here it stays as it is written.
        known = {f"{{{index}}}": number for index, number in enumerate(numbers)}
        said = _NUMBER.sub(lambda match: known.get(match[0], match[0]), claim.tested)
    else:
        said = f"{claim.id.replace('-', ' ')}: {_between(claim.kind, numbers)}"
    seeds = max(len(cell.seeds) for cell in measured)
    return "; ".join(filter(None, (said, asked, f"{seeds} {replicate}s" if seeds > 1 else "")))


def _between(kind: str, numbers: Sequence[str]) -> str:
    return {"order": " < ", "ratio": " / ", "within": " against "}.get(kind, ", ").join(numbers)


def _number(cell: Measurement) -> str:
    if cell.value is None:
        return in_words(cell)
    return in_unit(float(cell.value), value_interval(cell), cell.unit)


def published(claim: Claim, documents: Documents) -> str:
    """What became of the document's sentence at its own scale: its printed numbers, not run."""
    if documents.here:
        return ""
    scale = f"{documents.scale}: " if documents.scale else ""
    printed = _printed(claim, documents.expected)
    return f"{scale}{f'printed {printed}; ' if printed else ''}not run here"


def _printed(claim: Claim, expected: Expectation | None) -> str:
    if expected is None:
        return ""
    same = [other for other in expected.claims if claim.id == other.id]
    same += [other for other in expected.claims if claim.sentence == other.sentence]
    cells = {cell.id: cell for cell in expected.cells}
    ids = claim_cells(same[0]) if same else []
    return ", ".join(_as_printed(cells[id]) for id in ids if id in cells and cells[id].value)


def _as_printed(cell: ExpectedCell) -> str:
    return f"{cell.value}{_SUFFIX.get(cell.unit, '')}"


def decides(claim: ClaimReport, cells: Mapping[str, Measurement], replicate: str) -> str:
    """How many replicates would decide an open claim, were the measured numbers to stay."""
    counts = [len(cells[id].seeds) for id in claim.cells if id in cells]
    if claim.outcome != "undetermined" or claim.p is None or not counts or min(counts) < 2:
        return ""
    if claim.p >= 0.5:
        return "as measured, it would not hold"
    count = min(counts)
    t = t_quantile(1 - claim.p, count - 1)
    strict = (claim.p_holm or claim.p) / claim.p

    def enough(size: float) -> bool:
        return strict * t_tail(t * (size / count) ** 0.5, size - 1) <= ALPHA

    size = smallest(enough, count)
    if size is None:
        return ""
    return f"about {size:.0f} {replicate}s would decide, if these numbers stay"


def caveats(sentences: Sequence[str], claims: Sequence[ClaimReport]) -> list[str]:
    """The caveats, with what was tested and what came out where they name ``{claim}``."""
    said = {
        f"{{{claim.id}}}": f"{claim.tested or claim.detail}: {claim.outcome}" for claim in claims
    }
    return [
        re.sub(r"\{[a-z0-9][a-z0-9.-]*\}", lambda match: said.get(match[0], match[0]), sentence)
        for sentence in sentences
    ]


def with_headline(verdict: Verdict, documents: Documents | None) -> Verdict:
    """The verdict with what became of the documents' numbers, and its one sentence."""
    said = "" if documents is None else published_line(verdict, documents)
    verdict = structs.replace(verdict, published=said)
    return structs.replace(verdict, headline=headline(verdict))


def headline(verdict: Verdict) -> str:
    """The verdict with its scale and what was not touched, in one sentence."""
    marks = ["modified"] * verdict.modified + ["not run here"] * verdict.not_run_here
    marked = f" ({', '.join(marks)})" if marks else ""
    scale = f" at {verdict.scale} scale" if verdict.scale else ""
    rest = f"; {verdict.published}" if verdict.published else ""
    return f"{verdict.verdict}{marked}{scale} ({_score(verdict)}){rest}"


def _score(verdict: Verdict) -> str:
    if verdict.verdict == "REHEARSED":
        return "stand-in weights and data: says nothing about any claim"
    if verdict.verdict == "NOT COMPARED":
        return f"no expectation; {plural(len(verdict.cells), 'cell')} measured"
    primary = [claim.outcome for claim in verdict.claims if claim.primary]
    if not primary:
        good = sum(cell.verdict in ("match", "reproduced") for cell in verdict.cells)
        return f"no primary claims; {good} of {len(verdict.cells)} cells agree"
    counts = Counter(primary)
    if counts["holds"] == len(primary):
        return f"{len(primary)} of {len(primary)} primary claims"
    words = [f"{counts['holds']} of {len(primary)} primary claims hold"]
    words += [f"{counts['fails']} fail{'s' if counts['fails'] == 1 else ''}"] * bool(
        counts["fails"]
    )
    words += [f"{counts['undetermined']} open"] * bool(counts["undetermined"])
    words += [f"{counts['not-evaluated']} not evaluated"] * bool(counts["not-evaluated"])
    return ", ".join(words)


def published_line(verdict: Verdict, documents: Documents) -> str:
    """Whether the documents' own numbers were compared: what stands behind every verdict."""
    if not documents.here or verdict.verdict == "REHEARSED":
        return f"published {f'{documents.scale} ' if documents.scale else ''}numbers: not run"
    cells = [cell for cell in verdict.cells if cell.published is not None]
    done = sum(cell.verdict not in ("not-run", "not-compared", "missing") for cell in cells)
    return f"published numbers: {done} of {len(cells)} compared"
