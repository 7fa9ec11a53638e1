"""What a tolerance kind finds, and how two tests make four outcomes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kit.verify.numbers import points, rounded, show
from kit.verify.verdict import CellVerdict, Interval

ALPHA = 0.05
"""Level of the difference test and of each side of the equivalence test."""


@dataclass(frozen=True)
class Finding:
    """Outcome of comparing one cell; numbers stand in the cell's unit.

    The fields are those of :class:`kit.verify.verdict.CellReport` with the same names.
    """

    verdict: CellVerdict
    detail: str
    difference: float | None = None
    interval: Interval | None = None
    interval_equivalence: Interval | None = None
    margin: float | None = None
    shifted: bool = False
    flip_rate: float | None = None
    p: float | None = None
    needed: str | None = None


def invalid(detail: str) -> Finding:
    """A precondition broke."""
    return Finding("invalid", detail)


def conclude(identical: bool, equivalent: bool, different: bool) -> CellVerdict:
    """Equivalence and difference are tested separately.

    >>> [conclude(False, e, d) for e in (True, False) for d in (True, False)]
    ['reproduced', 'reproduced', 'deviates', 'inconclusive']
    """
    if identical:
        return "match"
    if equivalent:
        return "reproduced"
    return "deviates" if different else "inconclusive"


def inside(interval: tuple[float, float], margin: float) -> bool:
    """The interval lies within ``+-margin``, ends included."""
    return -margin <= interval[0] and interval[1] <= margin


def excludes_zero(interval: tuple[float, float]) -> bool:
    """The interval lies wholly above or wholly below 0."""
    return interval[0] > 0 or interval[1] < 0


def scaled(interval: tuple[float, float], level: float, scale: float = 1.0) -> Interval:
    """The interval in the cell's unit."""
    return Interval(low=interval[0] * scale, high=interval[1] * scale, level=level)


def judged(
    *,
    identical: bool,
    difference: float,
    wide: tuple[float, float],
    narrow: tuple[float, float],
    margin: float,
    p: float,
    unit: str,
    scale: float = 1.0,
    how: str,
) -> Finding:
    """The finding of a kind with two intervals of the difference.

    Args:
        identical: Equal at printed precision.
        difference: Measured minus published.
        wide: 95 % interval of the difference.
        narrow: 90 % interval of the difference: inside the margin exactly when both one-sided
            tests at 5 % reject (TOST, Schuirmann 1987).
        margin: Half-width of what counts as equal.
        p: Two-sided p of no difference.
        unit: The cell's unit, for the sentence.
        scale: What the numbers are multiplied by for the report (100 for percent).
        how: Which interval, for the sentence.
    """
    equivalent, different = inside(narrow, margin), excludes_zero(wide)
    verdict = conclude(identical, equivalent, different)
    low, high = wide[0] * scale, wide[1] * scale
    here, from_, to = (
        rounded(v, (high - low) / 2, unit, signed=True) for v in (difference * scale, low, high)
    )
    what = "equal at printed precision" if identical else f"difference {here}{points(unit)}"
    detail = f"{what}; 95 % {how} {from_} to {to}, margin {show(margin * scale)}"
    shifted = verdict == "reproduced" and different
    if shifted:
        detail += "; equal within the margin, yet shifted"
    return Finding(
        verdict,
        detail,
        difference=difference * scale,
        interval=scaled(wide, 0.95, scale),
        interval_equivalence=scaled(narrow, 0.90, scale),
        margin=margin * scale,
        shifted=shifted,
        p=p,
    )


def with_needed(finding: Finding, needed: str) -> Finding:
    """The finding, with what would decide it when it is open."""
    return replace(finding, needed=needed) if finding.verdict == "inconclusive" else finding
