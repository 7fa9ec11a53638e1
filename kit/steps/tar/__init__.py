"""Step kinds of the TAR family."""

from kit.steps.tar import kinds

__all__ = ["kinds"]
