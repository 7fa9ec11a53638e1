"""Step kinds of the TAR family."""

from kit.steps.tar import judging, kinds

__all__ = ["judging", "kinds"]
