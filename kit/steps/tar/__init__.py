"""Step kinds of the TAR family."""

from kit.steps.tar import judging, kinds, refusal

__all__ = ["judging", "kinds", "refusal"]
