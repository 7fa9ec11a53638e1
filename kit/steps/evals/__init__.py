"""Step kinds of evaluations, for every family."""

from kit.steps.evals import kinds

__all__ = ["kinds"]
