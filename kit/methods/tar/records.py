"""What an outer loop writes down of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class OuterStep:
    """One outer step; JSON values.

    Attributes:
        number: Counted from 0.
        attacks: For each simulated attack its adversary, learning rate, optimizer, switch, losses
            (the adversary's before each inner step) and tamper ([inner step, loss], unweighted);
            with DPO won, the share of held-out pairs won behind the last inner step.
        weighted_tamper_loss: Sum of the tamper-resistance losses, weighted.
        retain_loss: Unweighted.
        retain_gradient: L2 norm of the gradient without the tamper-resistance part.
        gradient: L2 norm of the whole gradient.
    """

    number: int
    attacks: list[dict[str, Any]]
    weighted_tamper_loss: float
    retain_loss: float
    retain_gradient: float
    gradient: float


@dataclass
class TarRun:
    """A run, steps of earlier processes included.

    Attributes:
        steps: Outer steps.
        measured: (outer steps done, what was measured), ascending.
    """

    steps: list[OuterStep] = field(default_factory=list)
    measured: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    def curves(self) -> dict[str, list[Any]]:
        """As JSON values, for a checkpoint."""
        return {
            "steps": [asdict(step) for step in self.steps],
            "measured": [list(point) for point in self.measured],
        }

    @classmethod
    def from_curves(cls, curves: Mapping[str, list[Any]]) -> TarRun:
        """The inverse of :meth:`curves`."""
        return cls(
            steps=[OuterStep(**values) for values in curves["steps"]],
            measured=[(step, values) for step, values in curves["measured"]],
        )
