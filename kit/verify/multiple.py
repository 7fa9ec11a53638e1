"""Many tests at once: Holm for the claims that decide, Benjamini-Hochberg for the cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from kit.verify.dependence import Sides, drawn_limit, shift_p
from kit.verify.finding import ALPHA
from kit.verify.numbers import show_p
from kit.verify.special import binomial_at_most, normal_quantile
from kit.verify.verdict import CellReport, Omnibus

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
    adjusted, running = [0.0] * len(p), 0.0
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
    adjusted, running = [0.0] * len(p), 1.0
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
