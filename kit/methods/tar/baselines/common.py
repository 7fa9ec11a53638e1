"""The term that most baselines share."""

from __future__ import annotations

from kit.methods.tar.baselines.recipe import Term
from kit.methods.tar.objectives import language_model_loss

FORGET = "forget"
RETAIN = "retain"

STAY = Term("retain", (RETAIN,), language_model_loss)
"""Stay a language model on retain data."""
