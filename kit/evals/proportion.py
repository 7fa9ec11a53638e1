"""k of n."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Proportion:
    """A count of successes.

    Attributes:
        k: Successes.
        n: Trials; at least 1.
    """

    k: int
    n: int

    def __post_init__(self) -> None:
        """Refuse what is no proportion."""
        if self.n < 1 or not 0 <= self.k <= self.n:
            raise ValueError(f"{self.k} of {self.n} is not a proportion")

    @property
    def value(self) -> float:
        """Fraction, 0 to 1."""
        return self.k / self.n

    @classmethod
    def of(cls, labels: Sequence[bool]) -> Proportion:
        """Count the true labels.

        Raises:
            ValueError: No labels: a rate over nothing is undefined, not zero.
        """
        return cls(sum(bool(label) for label in labels), len(labels))
