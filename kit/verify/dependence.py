"""Cells of the same replicates hang together: how many differ by chance in one run in a hundred.

A seed in which unlearning went a little further moves every cell of a sweep over one model. Of
correlated cells, far more than a twentieth differ by chance in some runs and none in others, so
that the binomial limit for independent cells is passed by a true replication in a tenth of all runs
(docs/verdicts.md). Here the limit is drawn: normal scores with the correlations that the replicates
show, shrunk towards none by what chance alone adds to correlations of few replicates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from statistics import fmean

from kit.manifest.expectation_types import Reference
from kit.verify.measurement import Measurement
from kit.verify.seeds import group, matched, mean_spread, welch
from kit.verify.special import normal_quantile

DRAWS = 2000

Sides = Mapping[str, Mapping[str, float]]
"""Side -> replicate -> value: the differences where sides are paired, else ``run`` and
``reference``; empty where nothing is repeated."""


def sides_of(cell: Measurement, reference: Reference | None) -> dict[str, dict[str, float]]:
    """What the replicates of a cell show."""
    here = {seed.id: seed.value for seed in cell.seeds}
    values = list(map(Fraction, reference.values)) if reference else []
    ids = (reference.seeds if reference else []) or [f"#{i}" for i in range(len(values))]
    there = dict(zip(ids, values, strict=False))
    shared = matched(here, there)
    if len(shared) >= 2:
        return {"paired": {key: float(ours - theirs) for key, (ours, theirs) in shared.items()}}
    pair = {"run": here, "reference": there}
    return {
        side: {key: float(value) for key, value in values.items()}
        for side, values in pair.items()
        if len(values) >= 2
    }


def _left(sides: Sides) -> dict[tuple[str, str], float]:
    """(side, replicate) -> what is left of its value when means are taken away."""
    means = {side: fmean(values.values()) for side, values in sides.items()}
    return {
        (side, key): value - means[side]
        for side, values in sides.items()
        for key, value in values.items()
    }


def shift_p(cells: Sequence[Sides]) -> float:
    """Two-sided p of no common shift: of the replicates' means over the cells, each in its spread.

    A shift of all cells is seen in every replicate, however far the cells hang together.

    Returns:
        1 where cells have not the same replicates on the same sides, or nothing spreads.
    """
    scaled: list[Sides] = []
    for sides in cells:
        length = sum(value**2 for value in _left(sides).values()) ** 0.5
        if length:
            scaled.append({s: {k: v / length for k, v in of.items()} for s, of in sides.items()})
    shapes = {tuple((side, *sorted(of)) for side, of in sides.items()) for sides in scaled}
    if len(shapes) != 1:
        return 1.0
    means = {
        side: group([Fraction(fmean(cell[side][key] for cell in scaled)) for key in of])
        for side, of in scaled[0].items()
    }
    if "paired" in means:
        gap, spread = means["paired"].mean, mean_spread(means["paired"])
    elif len(means) == 2:
        gap = means["run"].mean - means["reference"].mean
        spread = welch(means["run"], means["reference"])
    else:
        return 1.0
    return min(1.0, 2 * spread.tail(abs(float(gap)))) if spread is not None else 1.0


def drawn_limit(cells: Sequence[Sides], alpha: float, level: float) -> int:
    """The count of cells with p below ``alpha`` that this share of true replications stays within.

    Args:
        cells: Replicates of each cell; those without any vary on their own.
        alpha: Two-sided level of a cell.
        level: Share of the true replications.

    Returns:
        0 where nothing is repeated, and so nothing is known.
    """
    if not any(cells):
        return 0
    import numpy as np

    left = [_left(sides) for sides in cells]
    keys = {key: at for at, key in enumerate(dict.fromkeys(key for cell in left for key in cell))}
    units = np.zeros((len(cells), len(keys)))
    for row, cell in enumerate(left):
        for key, value in cell.items():
            units[row, keys[key]] = value
    length = np.linalg.norm(units, axis=1)
    varying = length > 0
    units[varying] /= length[varying, None]
    count = int(varying.sum())
    freedom = sum(
        len(of) - 1
        for sides, spreads in zip(cells, varying, strict=True)
        if spreads
        for of in sides.values()
    )
    # The sum of squared correlations is that of the products of replicates, which are few.
    squares = float(((units.T @ units) ** 2).sum() - count) / max(1, count * (count - 1))
    chance = count / freedom if freedom else 1.0
    real = max(0.0, (squares - chance) / (1 - chance)) if chance < 1 else squares
    kept = (min(1.0, real / squares) if squares > 0 else 0.0) ** 0.5
    random = np.random.default_rng(0)
    shared = random.standard_normal((DRAWS, len(keys))) @ units.T
    own = random.standard_normal((DRAWS, len(cells)))
    weights = np.where(varying, kept, 0.0)
    scores = np.sqrt(weights) * shared + np.sqrt(1 - weights) * own
    beyond = (np.abs(scores) > -normal_quantile(alpha / 2)).sum(axis=1)
    return int(np.quantile(beyond, level, method="higher"))
