"""Step kinds of the miniature worlds that pretrain within a run."""

from kit.steps.mini import pretraining

__all__ = ["pretraining"]
