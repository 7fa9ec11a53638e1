"""Step kinds of the DefensiveTokens family; importing this package registers them."""

from kit.steps.defensive_tokens import kinds

__all__ = ["kinds"]
