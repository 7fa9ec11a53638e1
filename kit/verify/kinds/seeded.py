"""``seeds``: replicates against a published (or reference) mean."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import sqrt

from kit.manifest.expectation_types import ExpectedCell, Reference
from kit.verify.finding import Finding, judged, with_needed
from kit.verify.measurement import Measurement
from kit.verify.numbers import points, printed, show
from kit.verify.planning import needed_seeds
from kit.verify.seeds import (
    Group,
    Spread,
    baseline,
    group,
    item_sd,
    matched,
    reference_group,
    rounding,
    seed_group,
    welch,
)


def seeds(cell: Measurement, expected: ExpectedCell, margin: Fraction, where: str) -> Finding:
    """Equivalent: 90 % interval inside ``+-margin``. Different: 95 % interval excludes 0.

    Which interval, in this order:

    - the same replicates run again: t over the differences one by one, because what they have in
      common is no noise of the repetition. Where only a part of their ids is that of the reference
      (the same pair of models, another training seed), over the means by that part;
    - seeds on both sides: Welch;
    - a single run on one side: prediction interval from the other side's seeds (k = 3 published
      seeds: 4.97 sd wide each way, not 1 or 2);
    - a single run against a single number has no variance and stays open.
    """
    said = baseline(expected)
    assert said is not None
    here = seed_group(cell)
    there, note, width = Group(said.value, 0.0, 1, here.floor), "", float(said.half)
    if expected.reference is None:
        spread = welch(here, there)
    else:
        known = reference_group(expected.reference, here.floor)
        if abs(known.mean - said.value) <= said.half:
            again = _paired(cell, expected.reference, margin)
            if again is not None:
                return again
            there, width = known, _blur(expected.reference)
            spread = welch(here, there)
        else:  # the document's own single number, with this kit's spread between seeds
            spread = _borrowed(here, known)
            note = "; spread borrowed from the reference"
    identical = abs(here.mean - said.value) <= said.half
    gap = here.mean - there.mean
    if spread is None:
        return _without_spread(identical, gap, margin, here, there, cell.unit)
    size = float(gap)
    finding = _judged(identical, size, spread, width, margin, cell.unit, note)
    if finding.verdict != "inconclusive":
        return finding
    sd = here.sd or there.sd or spread.error

    def trial(count: int, k: int) -> Spread:
        ours = replace(here, sd=here.sd or sd, size=count)
        test = welch(ours, replace(there, sd=there.sd or sd, size=k))
        assert test is not None
        return test

    sizes = (here.size, there.size)
    return with_needed(finding, needed_seeds(trial, sizes, abs(size), float(margin), width))


def _judged(
    identical: bool,
    size: float,
    spread: Spread,
    width: float,
    margin: Fraction,
    unit: str,
    note: str = "",
) -> Finding:
    return judged(
        identical=identical,
        difference=size,
        wide=spread.interval(size, 0.95, width),
        narrow=spread.interval(size, 0.90, width),
        margin=float(margin),
        p=min(1.0, 2 * spread.tail(max(0.0, abs(size) - width))),
        unit=unit,
        how=spread.how + note,
    )


def _paired(cell: Measurement, reference: Reference, margin: Fraction) -> Finding | None:
    """Replicates that both sides have, difference by difference.

    Replicates that are equal on both sides say nothing about the spread of the others, so they do
    not count as degrees of freedom: of ten pairs of which four differ, all four go one way in an
    eighth of all true replications. The differences may show no spread at all. Then item sampling
    stands in for it where they are proportions of n items; other numbers are left to the unpaired
    comparison.

    Returns:
        None when fewer than two replicates are shared, or nothing says how they spread.
    """
    known = dict(zip(reference.seeds, map(Fraction, reference.values), strict=False))
    shared = matched({seed.id: seed.value for seed in cell.seeds}, known)
    if len(shared) < 2:
        return None
    gaps = [here - there for here, there in shared.values()]
    differences, slack = group(gaps), rounding(cell.value or 0)
    m, size = differences.size, float(differences.mean)
    what = "seeds" if shared.keys() <= known.keys() else "replicates"
    if all(abs(gap) <= slack for gap in gaps):
        return Finding(
            "match",
            f"all {m} {what} equal the reference one by one",
            difference=0.0,
            margin=float(margin),
            p=1.0,
        )
    sd, how = differences.sd, f"interval over {m} repeated {what}"
    df = max(1, sum(1 for gap in gaps if abs(gap) > slack) - 1)
    if max(gaps) - min(gaps) <= slack:
        floor = item_sd(cell)
        if floor is None:
            return None
        sd, how = floor * sqrt(2), f"{how} (equal differences; item sampling stands in)"
    spread = Spread(sd / sqrt(m), df, how)
    finding = _judged(False, size, spread, 0.0, margin, cell.unit)

    def trial(count: int, k: int) -> Spread:
        return replace(spread, error=sd / sqrt(count), df=count - 1)

    return with_needed(finding, needed_seeds(trial, (m, m), abs(size), float(margin), 0.0))


def _blur(reference: Reference) -> float:
    """Printed precision of a reference mean that comes without its values."""
    return 0.0 if reference.values else float(printed(reference.mean).half)


def _borrowed(here: Group, known: Group) -> Spread | None:
    """Published single number: spread pooled from the reference seeds and the seeds run here."""
    df = known.size + here.size - 2
    if df < 1:
        return None
    pooled = ((known.size - 1) * known.sd**2 + (here.size - 1) * here.sd**2) / df
    sd = sqrt(pooled) if pooled > 0 else here.floor
    if sd is None:
        return None
    return Spread(sd * sqrt(1 + 1 / here.size), float(df), f"prediction interval, {df + 1} seeds")


def _without_spread(
    identical: bool, gap: Fraction, margin: Fraction, here: Group, there: Group, unit: str
) -> Finding:
    """No variance to be had: equality can be seen, and nothing else can be tested."""
    size = float(gap)
    if identical:
        return Finding("match", "equal at printed precision", size, margin=float(margin))
    if here.size + there.size <= 2:
        return Finding(
            "inconclusive",
            f"difference {show(gap, signed=True)}{points(unit)}; one run against one published "
            "number has no variance",
            difference=size,
            margin=float(margin),
            needed="at least 2 seeds, better 3",
        )
    beyond = abs(gap) > margin
    return Finding(
        "deviates" if beyond else "inconclusive",
        f"difference {show(gap, signed=True)}{points(unit)}, margin {show(margin)}; the seeds show "
        "no spread at all, so no test applies"
        + (", and the difference is beyond the margin" if beyond else ""),
        difference=size,
        margin=float(margin),
        needed=None if beyond else "seeds that differ, or the kind `absolute` if nothing is random",
    )
