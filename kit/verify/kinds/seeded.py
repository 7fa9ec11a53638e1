"""``seeds``: replicates against a published (or reference) mean."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import sqrt

from kit.errors import InvalidInput
from kit.manifest.expectation_types import ExpectedCell, Reference
from kit.verify.finding import Finding, inside, judged, with_needed
from kit.verify.measurement import Measurement
from kit.verify.numbers import points, printed, show
from kit.verify.seeds import Group, Spread, group, seed_group, welch

_MOST = 10_000


def reference_group(reference: Reference, place: str, floor: float | None) -> Group:
    """The reference seeds as a group; recomputed from their values.

    Raises:
        InvalidInput: Mean, sd or number of seeds contradict the values.
    """
    values = [Fraction(value) for value in reference.values]
    if not values:
        return Group(Fraction(reference.mean), float(reference.sd), reference.n_seeds, floor)
    found = group(values, floor)
    mean = printed(reference.mean)
    sd = printed(reference.sd)
    rounding = 1e-9 * max(1.0, abs(float(mean.value)))  # of sums in floating point
    wrong = (
        f"n_seeds is {reference.n_seeds}, values has {len(values)}"
        if len(values) != reference.n_seeds
        else f"mean is {reference.mean}, the values give {float(found.mean):.6g}"
        if abs(float(found.mean - mean.value)) > float(mean.half) + rounding
        else f"sd is {reference.sd}, the values give {found.sd:.6g}"
        if abs(found.sd - float(sd.value)) > float(sd.half) + rounding
        else ""
    )
    if wrong:
        raise InvalidInput(
            f"field 'reference': {wrong}", where=place, next_step="kit reference EXP RUN..."
        )
    return found


def seeds(cell: Measurement, expected: ExpectedCell, margin: Fraction, place: str) -> Finding:
    """Equivalent: 90 % interval inside ``+-margin``. Different: 95 % interval excludes 0.

    The interval is Welch's where both sides have seeds, and a prediction interval where one side
    is a single run (k = 3 published seeds: 4.97 sd wide each way, not 1 or 2). A single run
    against a single published number has no variance and stays open.
    """
    here = seed_group(cell)
    base, blur = _printed(expected, cell.unit)
    there, note, width = Group(base, 0.0, 1, here.floor), "", float(blur)
    if expected.reference is None:
        spread = welch(here, there)
    else:
        known = reference_group(expected.reference, place, here.floor)
        if abs(known.mean - base) <= blur:
            there, width = known, _blur(expected.reference)
            spread = welch(here, there)
        else:  # the document's own single number, with this kit's spread between seeds
            spread, width = _borrowed(here, known), float(blur)
            note = "; spread borrowed from the reference"
    identical = abs(here.mean - base) <= blur
    gap = here.mean - there.mean
    if spread is None:
        return _without_spread(identical, gap, margin, here, there, cell.unit)
    size = float(gap)
    finding = judged(
        identical=identical,
        difference=size,
        wide=spread.interval(size, 0.95, width),
        narrow=spread.interval(size, 0.90, width),
        margin=float(margin),
        p=min(1.0, 2 * spread.tail(max(0.0, abs(size) - width))),
        unit=cell.unit,
        how=spread.how + note,
    )
    if finding.verdict != "inconclusive":
        return finding
    return with_needed(finding, needed_seeds(here, there, spread, abs(size), float(margin), width))


def _printed(expected: ExpectedCell, unit: str) -> tuple[Fraction, Fraction]:
    """The published value and half a unit of its last digit; else the reference mean."""
    if expected.value is not None:
        said = printed(expected.value, unit)
        return said.value, said.half
    assert expected.reference is not None
    return Fraction(expected.reference.mean), printed(expected.reference.mean).half


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


def needed_seeds(
    here: Group, there: Group, spread: Spread, gap: float, margin: float, blur: float
) -> str:
    """How many seeds here would decide, were means and spread to stay as they are."""
    sd = here.sd or there.sd or spread.error

    def decided(count: int, k: int) -> bool:
        error = sd * sqrt(1 / count + 1 / k)
        trial = Spread(error, float(max(1, count + k - 2)), "")
        narrow = trial.interval(gap, 0.90, blur)
        return inside(narrow, margin) or trial.interval(gap, 0.95, blur)[0] > 0

    for both in (False, True):
        for count in _steps(here.size + 1):
            if decided(count, max(there.size, count) if both else there.size):
                more = " on both sides" if both else ""
                return f"about {count} seeds{more}"
    return "no number of seeds decides: the difference is as large as the margin"


def _steps(first: int) -> Iterator[int]:
    count = max(2, first)
    while count <= _MOST:
        yield count
        count = max(count + 1, int(count * 1.15))
