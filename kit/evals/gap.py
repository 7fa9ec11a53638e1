"""How much of the gap between no defence and the full defence is closed.

gap closed = (none - x) / (none - full), with attack success rates (transfer note, "Gap-closed
ratio"; reference page, section 3.4). Fractions or percent alike, as long as all three agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from kit.evals.proportion import Proportion


def gap_closed(none: float, x: float, full: float) -> float | None:
    """The ratio, or ``None`` where there is no gap to close (``none == full``).

    Below 0: worse than no defence. Above 1: better than the full defence.
    """
    return None if none == full else (none - x) / (none - full)


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: Lower end; ``-inf`` when unbounded.
        high: Upper end; ``inf`` when unbounded.
        kind: ``bounded``, ``exclusive`` (the confidence set is everything *outside* low..high) or
            ``unbounded`` (the gap itself cannot be told from zero; the ratio says nothing).
    """

    low: float
    high: float
    kind: str = "bounded"


def fieller_interval(
    none: Proportion, x: Proportion, full: Proportion, *, confidence: float = 0.95
) -> Interval:
    """Fieller's interval of the ratio, for three independently measured rates.

    The numerator and the denominator share ``none``, which is their covariance. Variances are
    those of the add-two-successes-and-failures estimate, because 0 of 208 has no spread of its own.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    a, b = none.value - x.value, none.value - full.value
    v_none, v_x, v_full = (_variance(p) for p in (none, x, full))
    # Ratio r is inside when (a - r b)^2 <= z^2 Var(a - r b), a quadratic in r.
    qa = b * b - z * z * (v_none + v_full)
    qb = -2 * (a * b - z * z * v_none)
    qc = a * a - z * z * (v_none + v_x)
    root = qb * qb - 4 * qa * qc
    if root < 0 or qa == 0:
        return Interval(-math.inf, math.inf, "unbounded")
    low, high = sorted(((-qb - math.sqrt(root)) / (2 * qa), (-qb + math.sqrt(root)) / (2 * qa)))
    return Interval(low, high, "bounded" if qa > 0 else "exclusive")


def bootstrap_interval(
    none: Sequence[Sequence[bool]],
    x: Sequence[Sequence[bool]],
    full: Sequence[Sequence[bool]],
    *,
    seed: int,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of the ratio of *maxima over variants*, resampling prompts.

    All three conditions were measured on the same prompts: a prompt is drawn with all its labels.

    Args:
        none: Variants x prompts, labels of the undefended model.
        x: The same for the method.
        full: The same for the full defence.
        seed: Of the resampling.
        resamples: Number of resamples; those without a gap are left out.
        confidence: Coverage.

    Raises:
        ValueError: Conditions over different numbers of prompts, or no resample with a gap.
    """
    import numpy as np

    arrays = [np.asarray(labels, dtype=float) for labels in (none, x, full)]
    if len({array.shape[1] for array in arrays if array.ndim == 2}) != 1:
        raise ValueError("the three conditions need labels of the same prompts, variant by variant")
    rng = np.random.default_rng(seed)
    n = arrays[0].shape[1]
    counts = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    rates = [(counts @ array.T / n).max(axis=1) for array in arrays]
    gap = rates[0] - rates[2]
    usable = gap != 0
    if not usable.any():
        raise ValueError("no resample has a gap between no defence and the full defence")
    ratios = (rates[0] - rates[1])[usable] / gap[usable]
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _variance(p: Proportion) -> float:
    shrunk = (p.k + 2) / (p.n + 4)
    return shrunk * (1 - shrunk) / (p.n + 4)
