"""Step kinds of the DefensiveTokens family; importing this package registers them."""

from kit.steps.defensive_tokens import adaptive, alignment, evaluation, labels, training

__all__ = ["adaptive", "alignment", "evaluation", "labels", "training"]
