"""What a cell is compared with: the published value, else the mean of reference runs."""

from __future__ import annotations

from fractions import Fraction

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


def reference_group(reference: Reference, floor: float | None) -> Group:
    """The reference seeds as a group; ``floor`` is the least sd of one value, if there is one."""
    values = [Fraction(value) for value in reference.values]
    if not values:
        return Group(Fraction(reference.mean), float(reference.sd), reference.n_seeds, floor)
    return group(values, floor)
