"""Reproductions add up: what independent entries of the log say together, claim by claim.

Runs of one profile and version are put together; miniature and full size never are. A run that
changed something, or a table brought from elsewhere, ran something else and is listed, not pooled.
Two runs with the same seeds repeat a computation and are one observation. Estimates are combined
with random effects (DerSimonian and Laird 1986); p values by Stouffer's sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import sqrt
from pathlib import Path

from kit.manifest.reference_record import FACTORS
from kit.report.log import FOLDER, ClaimEntry, Entry, entries
from kit.report.markdown import escape, table
from kit.verify.numbers import rounded

_LEVEL = 1.959964
"""Half-width of a 95 % interval in standard errors."""
DISAGREE = 0.01
"""p of homogeneity below which estimates of one number differ beyond chance."""


@dataclass(frozen=True)
class Combined:
    """Several estimates of one number.

    Attributes:
        value: Random-effects mean.
        error: Its standard error.
        q: Cochran's Q.
        p: Of homogeneity; 1 for a single estimate.
        i_squared: Share of the spread that chance within the runs does not explain, 0 to 1.
    """

    value: float
    error: float
    q: float
    p: float
    i_squared: float


def combine(values: Sequence[float], errors: Sequence[float]) -> Combined:
    """Estimates with standard errors, put together.

    Args:
        values: One a run.
        errors: Standard errors, all above 0.

    Raises:
        ValueError: None, or an error that is not above 0.
    """
    from scipy.stats import chi2

    if not values or min(errors) <= 0:
        raise ValueError("estimates need standard errors above 0")
    weights = [1 / error**2 for error in errors]
    total = sum(weights)
    fixed = sum(w * v for w, v in zip(weights, values, strict=True)) / total
    q = sum(w * (v - fixed) ** 2 for w, v in zip(weights, values, strict=True))
    free = len(values) - 1
    scale = total - sum(w**2 for w in weights) / total
    between = max(0.0, (q - free) / scale) if free else 0.0
    weights = [1 / (error**2 + between) for error in errors]
    mean = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    p = float(chi2.sf(q, free)) if free else 1.0
    return Combined(mean, 1 / sqrt(sum(weights)), q, p, max(0.0, (q - free) / q) if q else 0.0)


@dataclass(frozen=True)
class PooledClaim:
    """A primary claim over independent runs.

    Attributes:
        id: Of the claim.
        runs: Independent runs.
        outcomes: Outcome -> number of runs.
        p: That it holds, over all runs; None where no run had noise to test against.
        estimates: Cell, unit and what the runs give together.
        units: Cells left out because runs measured them in units that do not compare.
        contested: Runs disagree beyond chance.
    """

    id: str
    runs: int
    outcomes: dict[str, int]
    p: float | None
    estimates: list[tuple[str, str, Combined]]
    units: list[str]
    contested: bool


def independent(log: Sequence[Entry]) -> list[Entry]:
    """Entries that ran the experiment as it is, one for each set of seeds: the first by day."""
    chosen: dict[tuple[object, ...], Entry] = {}
    for item in sorted(log, key=lambda item: item.date):
        if not item.modified_beyond_seed and not item.brought and item.by_claim:
            key = (item.experiment, item.version, item.profile, item.seed)
            chosen.setdefault(key, item)
    return list(chosen.values())


def pool(runs: Sequence[Entry]) -> list[PooledClaim]:
    """Every primary claim of independent runs of one experiment, version and profile."""
    ids = dict.fromkeys(claim.id for run in runs for claim in run.by_claim)
    return [_pool(id, [c for run in runs for c in run.by_claim if c.id == id]) for id in ids]


def _pool(id: str, claims: Sequence[ClaimEntry]) -> PooledClaim:
    from scipy.stats import combine_pvalues

    outcomes: dict[str, int] = {}
    for claim in claims:
        outcomes[claim.outcome] = outcomes.get(claim.outcome, 0) + 1
    p_values = [claim.p for claim in claims if claim.p is not None]
    p = float(combine_pvalues(p_values, method="stouffer").pvalue) if p_values else None
    estimates, units = [], []
    for cell in dict.fromkeys(cell.id for claim in claims for cell in claim.cells):
        measured = [c for claim in claims for c in claim.cells if c.id == cell]
        unit = measured[0].unit
        factors = [1.0 if c.unit == unit else FACTORS.get((c.unit, unit)) for c in measured]
        if None in factors:
            units.append(cell)
            continue
        known = [
            (factor * c.value, factor * (c.high - c.low) / 2 / _LEVEL)
            for c, factor in zip(measured, factors, strict=True)
            if factor is not None and c.low is not None and c.high is not None and c.high > c.low
        ]
        if known:
            estimates.append((cell, unit, combine(*zip(*known, strict=True))))
    both = {"holds", "fails"} <= outcomes.keys()
    apart = any(combined.p < DISAGREE / len(estimates) for _, _, combined in estimates)
    contested = both or (apart and len(outcomes) > 1)
    return PooledClaim(id, len(claims), outcomes, p, estimates, units, contested)


def block(root: Path) -> str:
    """The pooled claims of a repository's log, for ``kit docs``."""
    return pooled_markdown(entries(root / FOLDER))


def pooled_markdown(log: Sequence[Entry]) -> str:
    """A line a claim of every experiment and profile that has entries."""
    rows = []
    runs = sorted(independent(log), key=_same)
    for (experiment, version, profile), group in groupby(runs, key=_same):
        members = list(group)
        classes = sorted({escape(run.environment) for run in members if run.environment})
        for claim in pool(members):
            says = ", ".join(f"{count} {word}" for word, count in sorted(claim.outcomes.items()))
            rows.append(
                [
                    f"{escape(experiment)} {escape(version)}, {escape(profile)}",
                    escape(claim.id),
                    str(claim.runs),
                    f"**contested**: {says}" if claim.contested else says,
                    "; ".join(_estimate(*item) for item in claim.estimates)
                    + "".join(f"; {escape(cell)}: units do not compare" for cell in claim.units),
                    "; ".join(classes),
                ]
            )
    if not rows:
        return "No two runs can be pooled yet.\n"
    head = ["Experiment", "Claim", "Independent runs", "Outcomes", "Together", "Environments"]
    return "\n".join(table(head, rows)).rstrip() + "\n"


def _same(run: Entry) -> tuple[str, str, str]:
    return run.experiment, run.version, run.profile


def _estimate(cell: str, unit: str, combined: Combined) -> str:
    half = _LEVEL * combined.error
    value, width = (rounded(number, half, unit) for number in (combined.value, half))
    text = f"{escape(cell)} {value} \u00b1 {width} {escape(unit)}"
    return text + (f" (I\u00b2 {combined.i_squared:.0%})" if combined.q else "")
