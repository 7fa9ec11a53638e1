"""Step kinds of the TAR family."""

from kit.steps.tar import judging, kinds, labels, refusal

__all__ = ["judging", "kinds", "labels", "refusal"]
