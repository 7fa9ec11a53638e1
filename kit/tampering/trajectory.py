"""What an attack did, step by step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kit.tampering.attack import Attack


@dataclass
class Trajectory:
    """Measurements over the steps of an attack, or of several in a row.

    Attributes:
        attacks: What was run, in order.
        points: (steps done, what ``evaluate`` returned), ascending; step 0 is before the attack.
        losses: Training loss of each step, before its update, nats a token.
        rates: Learning rate of each step.
        norms: L2 norm of each step's gradient, before clipping.
        data: Name of the data of each step.
        diverged: (step counted from 0, why) where the loss, the gradient or the weights could not
            be used any more; the attack ended there. ``None`` if it did not.
    """

    attacks: list[Attack] = field(default_factory=list)
    points: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    diverged: tuple[int, str] | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps done."""
        return len(self.losses)

    def curve(self, name: str) -> list[tuple[int, float]]:
        """(steps done, value) of a measurement.

        Raises:
            ValueError: Nothing of that name was measured.
        """
        curve = [(step, float(values[name])) for step, values in self.points if name in values]
        if not curve:
            known = sorted({key for _, values in self.points for key in values})
            raise ValueError(f"no {name!r} was measured; there is {', '.join(known) or 'nothing'}")
        return curve

    def highest(self, name: str) -> tuple[int, float]:
        """First step and value of the maximum, which is what a claim about an attack asks for."""
        return max(self.curve(name), key=lambda point: point[1])

    def end(self, name: str) -> float:
        """The last value."""
        return self.curve(name)[-1][1]

    def followed_by(self, other: Trajectory) -> Trajectory:
        """Both in a row; where both measured one point, the first's stands."""
        start = self.steps
        points = dict(self.points)
        for step, values in other.points:
            points.setdefault(start + step, values)
        diverged = self.diverged
        if diverged is None and other.diverged is not None:
            diverged = (start + other.diverged[0], other.diverged[1])
        return Trajectory(
            attacks=[*self.attacks, *other.attacks],
            points=sorted(points.items()),
            losses=[*self.losses, *other.losses],
            rates=[*self.rates, *other.rates],
            norms=[*self.norms, *other.norms],
            data=[*self.data, *other.data],
            diverged=diverged,
        )


def every(steps: int, interval: int) -> tuple[int, ...]:
    """0, each multiple of an interval, and the last step."""
    return tuple(sorted({*range(0, steps + 1, interval), steps}))


def joined(parts: Iterable[Trajectory]) -> Trajectory:
    """Several in a row."""
    whole = Trajectory()
    for part in parts:
        whole = whole.followed_by(part)
    return whole
