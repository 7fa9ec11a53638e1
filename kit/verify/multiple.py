"""Many tests at once: Holm for the claims that decide, Benjamini-Hochberg for the cells, and how
many cells differ by chance in one run in a hundred.

A seed in which unlearning went a little further moves every cell of a sweep over one model. Of
correlated cells, far more than a twentieth differ by chance in some runs and none in others, so
that the binomial limit for independent cells is passed by a true replication in a tenth of all runs
(docs/verdicts.md). There the limit is drawn: normal scores with the correlations that the
replicates show, shrunk towards none by what chance alone adds to correlations of few replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from statistics import fmean
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from kit.manifest.expectation_types import Reference
from kit.verify.finding import ALPHA
from kit.verify.measurement import Measurement
from kit.verify.numbers import show_p
from kit.verify.seeds import group, matched, mean_spread, welch
from kit.verify.special import binomial_at_most, normal_quantile
from kit.verify.verdict import CellReport, Omnibus

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
    return 2 * spread.tail(abs(float(gap))) if spread is not None else 1.0


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


Tested = TypeVar("Tested", bound=Struct)
ENOUGH = 10
"""Cells that a metric must have for a line of its own."""
LEVEL = 0.99
"""Share of true replications that an omnibus line lets pass."""


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values: ``max over j <= i of (m - j + 1) p_(j)`` (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, running = list(p), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = running
    return adjusted


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Step-up adjusted p-values: ``min over j >= i of m p_(j) / j`` (1995).

    >>> benjamini_hochberg([0.01, 0.04, 0.03])
    [0.03, 0.04, 0.04]
    """
    order = sorted(range(len(p)), key=lambda i: p[i], reverse=True)
    adjusted, running = list(p), 1.0
    for rank, index in enumerate(order):
        running = min(running, len(p) * p[index] / (len(p) - rank))
        adjusted[index] = running
    return adjusted


def with_q(items: Sequence[Tested]) -> list[Tested]:
    """Items with a field ``p``, each that has one with its Benjamini-Hochberg ``q``."""
    plain: Sequence[Any] = items
    tested = {i: float(item.p) for i, item in enumerate(plain) if item.p is not None}
    q = dict(zip(tested, benjamini_hochberg(list(tested.values())), strict=True))
    return [replace(item, q=q[i]) if i in q else item for i, item in enumerate(items)]


def at_least(p: Sequence[float], r: int) -> float:
    """p of "at least ``r`` of these hold": ``(n - r + 1) p_(r)`` (Benjamini and Heller 2008).

    For all of them it is the largest p (intersection-union), for one Bonferroni's smallest.
    """
    ordered = sorted(p)
    return min(1.0, (len(p) - r + 1) * ordered[r - 1])


def chance_limit(tested: int, level: float = LEVEL) -> int:
    """Smallest count with ``P(Binomial(tested, 0.05) <= count) >= level``.

    >>> chance_limit(200), chance_limit(100), chance_limit(300)
    (18, 11, 24)
    """
    count = 0
    while binomial_at_most(count, tested, ALPHA) < level:
        count += 1
    return count


def normal_score(p: float, sign: float) -> float:
    """Signed z with two-sided p; 0 for p = 1."""
    if p >= 1 or sign == 0:
        return 0.0
    z = -normal_quantile(max(p, 1e-300) / 2)
    return z if sign > 0 else -z


def omnibus(
    cells: Iterable[CellReport], replicates: Callable[[str], Sides] = lambda id: {}
) -> list[Omnibus]:
    """One line a table, and one a metric of it where that alone exceeds what chance explains.

    A shift of all attack success rates is a minority of the cells of a table that has utility and
    refusals as well. What chance explains follows from how far cells hang together through their
    replicates; that they share prompts is not counted, so this flags, it proves not.

    Args:
        cells: Of all tables.
        replicates: Of a cell, in the run and in its reference.
    """
    tables: dict[str, list[CellReport]] = {}
    metrics: dict[str, list[CellReport]] = {}
    for cell in cells:
        if cell.p is not None and cell.verdict not in ("invalid", "missing"):
            tables.setdefault(cell.table, []).append(cell)
            metric, slash, _ = cell.id.rpartition("/")
            if slash and metric != cell.table:
                metrics.setdefault(metric, []).append(cell)
    lines = [_line(name, members, replicates) for name, members in tables.items()]
    parts = [_line(name, of, replicates) for name, of in metrics.items() if len(of) >= ENOUGH]
    return lines + [line for line in parts if line.exceeds]


def _line(name: str, members: Sequence[CellReport], replicates: Callable[[str], Sides]) -> Omnibus:
    tested = len(members)
    differing = sum(1 for cell in members if cell.p is not None and cell.p < ALPHA)
    chance, says = chance_limit(tested), ""
    exceeds = differing > chance
    if exceeds:
        sides = [replicates(cell.id) for cell in members]
        if (p := shift_p(sides)) < 1 - LEVEL:
            says = f"; all together they are shifted, {show_p(p)}"
        elif (drawn := drawn_limit(sides, ALPHA, LEVEL)) > chance:
            exceeds = differing > drawn
            chance, says = drawn, "; cells of the same replicates hang together"
    scores = [cell.z for cell in members if cell.z is not None]
    mean_z = sum(scores) / len(scores) if scores else None
    sentence = f"{differing} of {tested} differ, up to {chance} expected by chance (99 %){says}"
    if mean_z is not None and tested > 1:
        sentence += f"; mean z {mean_z:+.2f}"
    return Omnibus(
        table=name,
        tested=tested,
        differing=differing,
        chance=chance,
        exceeds=exceeds,
        mean_z=mean_z,
        sentence=sentence,
    )
