"""Recompute printed numbers that follow from other printed numbers.

Inputs are only known to within their rounding, so the result is an interval; a printed result is
in order when its own rounding interval meets it. Every formula here is monotone in each input
while the others are fixed, so the extremes lie at the corners of the input box.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction

from kit.manifest.printed import Printed

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


def agrees(formula: str, inputs: Sequence[Printed], printed: Printed, factor: int = 1) -> bool:
    """Whether the printed result can come from the printed inputs.

    Args:
        formula: Name in :data:`FORMULAS`.
        inputs: In the formula's order, all in one unit.
        printed: The printed result.
        factor: What the result is multiplied by (100 when it is printed in percent).
    """
    low, high = interval(formula, inputs)
    return low * factor <= printed.high and printed.low <= high * factor
