"""A number as a document prints it: exact value, and how far rounding may have moved it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction


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
        if not isinstance(exponent, int) or abs(exponent) > 400 or abs(number.adjusted()) > 400:
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
