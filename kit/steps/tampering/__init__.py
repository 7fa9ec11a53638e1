"""Step kinds of fine-tuning attacks, for every family."""

from kit.steps.tampering import kinds

__all__ = ["kinds"]
