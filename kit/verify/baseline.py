"""What a cell is compared with: the published value, else the mean of reference runs."""

from __future__ import annotations

from fractions import Fraction

from kit.errors import InvalidInput
from kit.manifest.expectation_types import ExpectedCell, Reference
from kit.manifest.printed import Printed
from kit.verify.numbers import printed
from kit.verify.seeds import Group, group

ROUNDING = 1e-9
"""References keep twelve digits; below this share two numbers are the same."""


def rounding(value: Fraction | float) -> float:
    """How far a number may be off because it was stored with twelve digits."""
    return ROUNDING * max(1.0, abs(float(value)))


def baseline(expected: ExpectedCell) -> Printed | None:
    """The number to compare with; None when there is none yet.

    A reference mean that comes with its values is generated: ``"22.5"`` is exact there and not a
    rounded number, so its half unit is that of the storage.
    """
    if expected.value is not None:
        return printed(expected.value, expected.unit)
    if expected.reference is None:
        return None
    mean = printed(expected.reference.mean)
    stored = Fraction(rounding(mean.value))
    half = stored if expected.reference.values else max(mean.half, stored)
    return Printed(mean.text, mean.value, half)


def reference_group(reference: Reference, place: str, floor: float | None) -> Group:
    """The reference seeds as a group; recomputed from their values.

    Args:
        reference: The block.
        place: Expectation file and cell, for messages.
        floor: Least sd of one value, where item sampling gives one.

    Raises:
        InvalidInput: Mean, sd, seeds or their number contradict the values.
    """
    values = [Fraction(value) for value in reference.values]
    if not values:
        return Group(Fraction(reference.mean), float(reference.sd), reference.n_seeds, floor)
    found = group(values, floor)
    problem = _contradiction(reference, found)
    if problem:
        raise InvalidInput(
            f"field 'reference': {problem}", where=place, next_step="kit reference EXP RUN..."
        )
    return found


def _contradiction(reference: Reference, found: Group) -> str:
    mean, sd = printed(reference.mean), printed(reference.sd)
    slack = rounding(mean.value)
    if found.size != reference.n_seeds:
        return f"n_seeds is {reference.n_seeds}, values has {found.size}"
    if reference.seeds and len(set(reference.seeds)) != found.size:
        return f"seeds has {len(set(reference.seeds))} different ids for {found.size} values"
    if abs(float(found.mean - mean.value)) > float(mean.half) + slack:
        return f"mean is {reference.mean}, the values give {float(found.mean):.6g}"
    if abs(found.sd - float(sd.value)) > float(sd.half) + slack:
        return f"sd is {reference.sd}, the values give {found.sd:.6g}"
    return ""
