"""Recompute printed numbers that follow from other printed numbers.

Inputs are only known to within their rounding, so the result is an interval; a printed result is
in order when its own rounding interval meets it. Every formula here is monotone in each input
while the others are fixed, so the extremes lie at the corners of the input box.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction

from kit.manifest.printed import WHOLE, Printed, factor

Formula = Callable[[Sequence[Fraction]], Fraction]


class Undecidable(ValueError):
    """The inputs are too coarsely rounded to say anything (a divisor may be zero)."""


def _gap_closed(values: Sequence[Fraction]) -> Fraction:
    undefended, this, full = values
    return (undefended - this) / (undefended - full)


FORMULAS: dict[str, tuple[Formula, int | None]] = {
    "gap_closed": (_gap_closed, 3),
    "max": (max, None),
    "difference": (lambda values: values[0] - values[1], 2),
    "ratio": (lambda values: values[0] / values[1], 2),
    "mean": (lambda values: sum(values, Fraction(0)) / len(values), None),
}
"""Name -> function and number of inputs (``None``: any)."""

UNITLESS = {"gap_closed", "ratio"}
"""Formulas whose result does not depend on the unit of the inputs."""


def interval(formula: str, inputs: Sequence[Printed]) -> tuple[Fraction, Fraction]:
    """Smallest and largest result that the rounding of the inputs allows.

    Raises:
        Undecidable: A divisor may be zero.
        ValueError: Wrong number of inputs.
    """
    function, wanted = FORMULAS[formula]
    if not inputs or (wanted is not None and len(inputs) != wanted):
        raise ValueError(f"{formula} takes {wanted or 'some'} cells, not {len(inputs)}")
    if formula in ("max", "mean"):
        return function([item.low for item in inputs]), function([item.high for item in inputs])
    divisor = _divisor(formula, inputs)
    if divisor is not None and divisor[0] <= 0 <= divisor[1]:
        raise Undecidable(f"the divisor of {formula} may be zero within rounding")
    corners = itertools.product(*((item.low, item.high) for item in inputs))
    results = [function(corner) for corner in corners]
    return min(results), max(results)


def _divisor(formula: str, inputs: Sequence[Printed]) -> tuple[Fraction, Fraction] | None:
    if formula == "gap_closed":
        return inputs[0].low - inputs[2].high, inputs[0].high - inputs[2].low
    if formula == "ratio":
        return inputs[1].low, inputs[1].high
    return None


def in_unit(
    formula: str, inputs: Sequence[tuple[Printed, str]], unit: str
) -> tuple[Fraction, Fraction] | None:
    """The same in the unit of the derived cell; ``None`` where the units do not compare.

    Args:
        formula: Name in :data:`FORMULAS`.
        inputs: Each with its unit, in the formula's order.
        unit: Of the result.

    Raises:
        Undecidable: As above.
    """
    common = inputs[0][1] if formula in UNITLESS else unit
    ratios = [factor(own, common) for _, own in inputs]
    known = [n.scaled(ratio) for (n, _), ratio in zip(inputs, ratios, strict=True) if ratio]
    if len(known) < len(inputs):
        return None
    low, high = interval(formula, known)
    whole = WHOLE.get(unit, 1) if formula in UNITLESS else 1
    return low * whole, high * whole
