"""The science: plain values in, plain values out. A stand-in for yours, without a model."""

from __future__ import annotations

import random
from collections.abc import Sequence


def attack(prompts: Sequence[str], *, defence: str, seed: int) -> list[int]:
    """Which prompts an attack gets through.

    Args:
        prompts: [n] what the model is asked.
        defence: ``none`` or ``ours``.
        seed: Of the attack.

    Returns:
        [n] 1 where the attack succeeds.

    Raises:
        ValueError: No such defence.
    """
    if defence not in ("none", "ours"):
        raise ValueError(f"unknown defence {defence!r}: none or ours")
    strength = random.Random(seed)
    withstands = {"none": 0.3, "ours": 0.9}[defence]
    return [int(strength.random() > withstands) for _ in prompts]
