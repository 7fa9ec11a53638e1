"""Which inner steps give a tamper-resistance gradient, and what each weighs."""

from __future__ import annotations

import math

EXPONENTIAL = "exponential"
UNIFORM = "uniform"
MEAN_OF_EVALUATED = "mean-of-evaluated"
SCHEMES = (UNIFORM, EXPONENTIAL, MEAN_OF_EVALUATED)
RATE = 0.0625
"""``--schedule_lambda`` of run_tar_bio.sh and run_tar_cyber.sh."""


def inner_weights(
    inner_steps: int,
    every: int,
    scale: float,
    *,
    scheme: str = EXPONENTIAL,
    rate: float = RATE,
) -> dict[int, float]:
    """Coefficient of the tamper-resistance loss after each inner step that gives one.

    With s counted from 0 and K inner steps, after step s with (s + 1) divisible by ``every``:

    - ``uniform``: scale / K, the 1/K of Algorithm 1, with nothing for the steps left out (the
      released code without ``--use_weighting_schedule``). At K = 64, every 4th step and scale 4
      the 16 coefficients sum to 1.
    - ``exponential``: scale x exp(rate x (s - K + 1)), the released scripts. Sums to 17.75.
    - ``mean-of-evaluated``: scale over the number of evaluations, the mean that Algorithm 1
      approximates when it looks at every 4th step only. Sums to the scale.

    Args:
        inner_steps: K.
        every: Gap between evaluations; the last step is always evaluated.
        scale: lambda_TR.
        scheme: One of ``SCHEMES``.
        rate: Of the exponential scheme.

    Returns:
        Inner step, counted from 0, to its coefficient; ascending.

    Raises:
        ValueError: Unknown scheme, or K that ``every`` does not divide.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"unknown weighting {scheme!r}; known: {', '.join(SCHEMES)}")
    if inner_steps < 1 or every < 1 or inner_steps % every:
        raise ValueError(
            f"{inner_steps} inner steps do not divide into gaps of {every}: the last step would "
            "give no tamper-resistance gradient"
        )
    steps = range(every - 1, inner_steps, every)
    if scheme == EXPONENTIAL:
        return {s: scale * math.exp(rate * (s - inner_steps + 1)) for s in steps}
    return {s: scale / (inner_steps if scheme == UNIFORM else len(steps)) for s in steps}
