"""Claims, canaries and the verdict itself as the report prints them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct

from kit.plural import plural
from kit.report.cells import gravest_first
from kit.report.text import p_equals
from kit.verify.outcome import NOT_WHOLE
from kit.verify.verdict import ClaimReport, Verdict

MOST_CLAIMS = 10
"""Claims of the first screen; only those that do not hold may be more."""

CLASS = {
    "REPRODUCED": "good",
    "PARTIALLY": "open",
    "INCOMPLETE": "open",
    "NOT REPRODUCED": "bad",
    "REHEARSED": "note",
    "NOT COMPARED": "note",
    "holds": "good",
    "fails": "bad",
    "undetermined": "open",
    "not-evaluated": "none",
    "match": "good",
    "reproduced": "good",
    "inconclusive": "open",
    "deviates": "bad",
    "missing": "bad",
    "invalid": "void",
    "not-run": "none",
    "not-compared": "none",
}
"""Word -> accent class. The word itself always stands beside the colour."""

MEANING = {
    "REPRODUCED": "Every primary claim holds.",
    "PARTIALLY": "Some primary claims hold, none fails, and something is still open.",
    "NOT REPRODUCED": "A primary claim fails.",
    "INCOMPLETE": "No primary claim could be decided.",
    "NOT COMPARED": "No expectation says what should have come out: this is what was measured.",
    "REHEARSED": "Stand-in data: this run proves that it fits, and says nothing about any claim.",
}


class Banner(Struct, kw_only=True):
    """The top of the report."""

    word: str
    css: str
    headline: str
    """Verdict with scale and what was not touched."""
    caveats: list[str]
    meaning: str
    covers: str
    omits: str
    marks: list[tuple[str, str]]
    """(label, explanation) for ``modified``, ``rehearsal`` and the like."""
    reasons: list[str]
    facts: list[tuple[str, str]]
    counts: list[tuple[str, int]]


class ClaimRow(Struct, kw_only=True):
    """A claim, and what the report adds to what ``kit verify`` said."""

    anchor: str
    said: ClaimReport
    css: str
    tested: str
    """What was tested here, with the measured numbers."""
    evidence: str
    """How it was decided, and its p once."""
    cells: list[tuple[str, str]]
    """(id, anchor) of the cells it rests on; the anchor is empty where the line was left out."""
    more_cells: int


def banner(verdict: Verdict, *, variant: str, rehearsal: bool, seeds: int) -> Banner:
    """The verdict in a word, a sentence of what it covers and one of what it does not."""
    counts: Counter[str] = Counter(cell.verdict for cell in verdict.cells)
    primary = [claim for claim in verdict.claims if claim.primary]
    word = verdict.verdict
    held = sum(1 for claim in primary if claim.outcome == "holds")
    # What the headline and the list of claims say already.
    said = {f"{held} of {len(primary)} primary claims hold"}
    said |= {f"{claim.outcome}: {claim.id}" for claim in primary}
    said.add(f"fails: {', '.join(claim.id for claim in primary if claim.outcome == 'fails')}")
    return Banner(
        word=word,
        css=CLASS[word],
        headline=verdict.headline.removeprefix(word).strip(),
        caveats=verdict.caveats,
        meaning="Something that a whole run has is missing here."
        if any(reason.startswith(NOT_WHOLE) for reason in verdict.reasons)
        else MEANING[word],
        covers=_covers(verdict, len(primary), seeds),
        omits=_omits(verdict, variant),
        marks=marks(verdict, rehearsal),
        reasons=[reason for reason in verdict.reasons if reason not in said],
        facts=[
            ("experiment", verdict.experiment),
            ("scale", verdict.scale or "not declared"),
            ("profile", verdict.profile),
            ("variant", variant or "not recorded"),
            ("seeds", str(seeds) if seeds else "single run"),
            ("version", verdict.version),
            ("kit", verdict.kit_version or "not recorded"),
        ],
        counts=gravest_first(counts),
    )


def _covers(verdict: Verdict, primary: int, seeds: int) -> str:
    over = f", over {plural(seeds, 'seed')}" if seeds else ""
    what = f"{plural(primary, 'primary claim')} and {plural(len(verdict.cells), 'cell')}"
    return f"It covers {what} at the {verdict.profile} profile{over}."


def _omits(verdict: Verdict, variant: str) -> str:
    open_ = sum(c.verdict in ("not-run", "not-compared", "missing") for c in verdict.cells)
    parts = [f"anything but {verdict.scope}"] if verdict.scope else []
    if open_:
        has = "that has" if open_ == 1 else "that have"
        parts.append(f"{plural(open_, 'cell')} {has} no comparison")
    elif verdict.not_covered:
        points = plural(len(verdict.not_covered), "point")
        parts.append(f"{points} listed under \u201cnot run\u201d")
    said = [f"It says nothing about {', nor about '.join(parts)}."] if parts else []
    if variant == "as-reported":
        said.append("The document\u2019s protocol is repeated as it is, flaws included.")
    return " ".join(said) or "Nothing that the expectation lists was left out."


def marks(verdict: Verdict, rehearsal: bool) -> list[tuple[str, str]]:
    """What qualifies a verdict, each with an explanation."""
    rehearsal = rehearsal or verdict.verdict == "REHEARSED"
    changed = "; ".join(verdict.overrides) or "parameters were overridden"
    known = [
        (rehearsal, "rehearsal", "random weights and stand-in data in the published shapes"),
        (verdict.modified, "modified", changed),
        (verdict.not_run_here, "not run here", "the numbers were brought as a table"),
        (verdict.blind is not None, "blind", verdict.blind.words if verdict.blind else ""),
        (verdict.exit_code == 4, "invalid", "a precondition broke; its numbers do not count"),
    ]
    return [(mark, why) for holds, mark, why in known if holds]


def claim_rows(verdict: Verdict, anchors: Mapping[str, str], most: int = 12) -> list[ClaimRow]:
    """Claims, primary ones first, each in the order of the expectation."""
    ordered = sorted(verdict.claims, key=lambda claim: not claim.primary)
    return [_claim(f"q{i}", claim, anchors, most) for i, claim in enumerate(ordered)]


def brief(rows: Sequence[ClaimRow]) -> tuple[list[ClaimRow], int]:
    """Primary claims for the first screen, those that hold last; and how many of them are left."""
    primary = sorted((r for r in rows if r.said.primary), key=lambda r: r.said.outcome == "holds")
    most = max(MOST_CLAIMS, sum(r.said.outcome != "holds" for r in primary))
    return primary[:most], len(primary[most:])


def _claim(anchor: str, claim: ClaimReport, anchors: Mapping[str, str], most: int) -> ClaimRow:
    return ClaimRow(
        anchor=anchor,
        said=claim,
        css=CLASS[claim.outcome],
        tested=claim.tested or claim.detail,
        evidence=evidence(claim),
        cells=[(id, anchors.get(id, "")) for id in claim.cells[:most]],
        more_cells=max(0, len(claim.cells) - most),
    )


def evidence(claim: ClaimReport) -> str:
    """How a claim was decided, and its p once."""
    p = claim.p if claim.p_holm is None else claim.p_holm
    shown = "" if p is None else f"{p_equals(p)}{' (Holm)' if claim.p_holm is not None else ''}"
    return ", ".join(filter(None, (claim.method if claim.tested else "", shown)))
