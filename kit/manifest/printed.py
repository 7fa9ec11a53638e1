"""A number as a document prints it: exact value, how far rounding may have moved it, and GRIM.

GRIM: is a printed percentage attainable with n items? There must be a whole number k with
round(100 k / n) equal to it. Rounding may be half-up or half-even, and a decimal tie may have been
decided either way by binary floats, so a tie counts for both neighbours. With n = 208 only 21 % of
one-decimal percentages are attainable, which catches most slips of the pen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

MAX_EXPONENT = 400
"""A number beyond this power of ten is a slip, and its exact value would fill the memory."""


@dataclass(frozen=True)
class Printed:
    """A printed number.

    Attributes:
        text: As printed.
        value: Exactly what is printed.
        half: Half a unit of the last printed digit.
    """

    text: str
    value: Fraction
    half: Fraction

    @classmethod
    def parse(cls, text: str) -> Printed:
        """Read ``1.9``, ``-0.50``, ``1e-5``.

        Raises:
            ValueError: Not a number, or with an absurd exponent.
        """
        try:
            number = Decimal(text)
        except ArithmeticError:
            raise ValueError(f"{text!r} is not a number") from None
        exponent = number.as_tuple().exponent
        if not isinstance(exponent, int) or max(abs(exponent), number.adjusted()) > MAX_EXPONENT:
            raise ValueError(f"{text!r} is not a number of a reasonable size")
        return cls(text, Fraction(number), Fraction(10) ** exponent / 2)

    @property
    def low(self) -> Fraction:
        """Smallest value that rounds to this."""
        return self.value - self.half

    @property
    def high(self) -> Fraction:
        """Largest value that rounds to this."""
        return self.value + self.half

    def scaled(self, factor: Fraction | int) -> Printed:
        """The same number in another unit."""
        return Printed(self.text, self.value * factor, self.half * abs(Fraction(factor)))


WHOLE = {"percent": 100, "fraction": 1}
"""Unit -> what all n items together are."""


_TO_BASE: dict[str, tuple[str, Fraction]] = {
    "percent": ("fraction", Fraction(1, 100)),
    "fraction": ("fraction", Fraction(1)),
    "minutes": ("seconds", Fraction(60)),
    "seconds": ("seconds", Fraction(1)),
}


def factor(source: str, target: str) -> Fraction | None:
    """By what a number in ``source`` is multiplied to stand in ``target``; None if impossible.

    >>> factor("fraction", "percent")
    Fraction(100, 1)
    >>> factor("loss", "percent") is None
    True
    """
    if source == target:
        return Fraction(1)
    have, want = _TO_BASE.get(source), _TO_BASE.get(target)
    if have is None or want is None or have[0] != want[0]:
        return None
    return have[1] / want[1]


def counts(printed: Printed, n: int, whole: int = 100) -> range:
    """Every k of 0..n whose share rounds to the printed value.

    Args:
        printed: The printed share.
        n: Items.
        whole: 100 for percent, 1 for fractions.
    """
    if n < 1:
        raise ValueError("n must be at least 1")
    first = max(0, math.ceil(printed.low * n / whole))
    last = min(n, math.floor(printed.high * n / whole))
    return range(first, last + 1)


def nearest_shares(printed: Printed, n: int, whole: int = 100) -> list[tuple[int, Fraction]]:
    """The counts just below and above the printed value with their shares, for messages."""
    below = math.floor(printed.value * n / whole)
    return [(k, Fraction(k * whole, n)) for k in (below, below + 1) if 0 <= k <= n]
