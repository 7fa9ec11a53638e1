"""Contrasts of first crossings of which some never happened while they were measured.

Such a value is censored: it is larger than the last x, and nobody knows by how much. It has no mean
and no t interval, so only the order of two values is used, and a pair whose order cannot be known
(both censored, or censored before the other one crossed) counts for neither side.

- Seeds of the same ids in both cells, or one cell against a number: the exact sign test over the
  pairs whose order is known.
- Other groups of seeds: Gehan's (1965) generalization of the rank-sum test. Every value is scored
  by how many of the pooled values are surely smaller, less how many are surely larger; the scores
  of the first group are summed and referred to all splits of the pooled values into groups of
  these sizes, exactly. Groups that were followed for different lengths are first cut to the
  shortest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb
from typing import NamedTuple

from kit.plural import plural
from kit.verify.measurement import Measurement
from kit.verify.numbers import show


@dataclass(frozen=True)
class Contrast:
    """Evidence about ``estimate = a - w * b - at``.

    Attributes:
        estimate: Exact, in the unit of ``a``; of first crossings of which some never happened,
            only the share of comparisons that go this way less that of the others.
        above: One-sided p of "larger than 0"; None without a noise model.
        below: One-sided p of "smaller than 0"; None without a noise model.
        method: How it was tested.
    """

    estimate: Fraction
    above: float | None
    below: float | None
    method: str

    @property
    def p(self) -> float | None:
        """Two-sided."""
        if self.above is None or self.below is None:
            return None
        return min(1.0, 2 * min(self.above, self.below))

    def flipped(self) -> Contrast:
        """The contrast with its sign turned."""
        return Contrast(-self.estimate, self.below, self.above, self.method)


class Bounded(NamedTuple):
    """A number, or only what it is larger than."""

    value: Fraction
    beyond: bool = False


def values_of(cell: Measurement) -> list[tuple[str, Bounded]]:
    """Seed and value of every replicate; a cell measured once is a seed without a name."""
    if not cell.seeds:
        assert cell.value is not None
        return [("", Bounded(cell.value))]
    return [(seed.id, Bounded(seed.value, seed.beyond)) for seed in cell.seeds]


def ordering(a: Measurement, b: Measurement | None, at: Fraction, weight: Fraction) -> Contrast:
    """Test ``a - weight * b`` (or ``a`` alone) against ``at``; ``weight`` in units of ``a``."""
    ours = values_of(a)
    if b is None:
        return _signs([compare(x, Bounded(at)) for _, x in ours], "seeds")
    moved = {id: Bounded(weight * y.value + at, y.beyond) for id, y in values_of(b)}
    common = [compare(x, moved[id]) for id, x in ours if id in moved]
    if len(common) >= 2:
        return _signs(common, "paired seeds")
    return _ranks([x for _, x in ours], list(moved.values()))


def compare(x: Bounded, y: Bounded) -> int:
    """1 if x is surely larger, -1 if surely smaller, 0 if equal or unknown.

    >>> never = Bounded(Fraction(100), beyond=True)
    >>> compare(never, Bounded(Fraction(100))), compare(Bounded(Fraction(120)), never)
    (1, 0)
    """
    if x.beyond and y.beyond:
        return 0
    if x.beyond:
        return 1 if x.value >= y.value else 0
    if y.beyond:
        return -1 if y.value >= x.value else 0
    return (x.value > y.value) - (x.value < y.value)


def _signs(outcomes: Sequence[int], what: str) -> Contrast:
    """Exact sign test; comparisons without a known order are left out, and said."""
    more, fewer = outcomes.count(1), outcomes.count(-1)
    known = more + fewer
    open_ = len(outcomes) - known
    method = f"exact sign test over {known} {what}"
    if open_:
        method += f" ({open_} of unknown or equal order left out)"
    lead = Fraction(more - fewer, len(outcomes))
    return Contrast(lead, _heads(more, known), _heads(fewer, known), method)


def _heads(count: int, of: int) -> float:
    """P(at least ``count`` heads of ``of`` fair coins), which is that of as few tails."""
    return float(Fraction(sum(comb(of, tails) for tails in range(of - count + 1)), 2**of))


def _ranks(ours: Sequence[Bounded], theirs: Sequence[Bounded]) -> Contrast:
    pooled = _cut([*ours, *theirs])
    scores = [sum(compare(x, y) for y in pooled) for x in pooled]
    m = len(ours)
    total = sum(scores[:m])
    ways = split_sums(scores, m)
    every = comb(len(pooled), m)
    above = sum(count for value, count in ways.items() if value >= total) / every
    below = sum(count for value, count in ways.items() if value <= total) / every
    method = f"exact rank test of {m} against {plural(len(theirs), 'seed')} with censoring (Gehan)"
    return Contrast(Fraction(total, m * len(theirs)), above, below, method)


def _cut(values: Sequence[Bounded]) -> list[Bounded]:
    """End everything where the first of them stopped being followed."""
    ends = [value.value for value in values if value.beyond]
    if not ends:
        return list(values)
    end = min(ends)
    return [Bounded(end, True) if x.beyond or x.value > end else x for x in values]


def split_sums(scores: Sequence[int], size: int) -> dict[int, int]:
    """How many choices of ``size`` of the scores have which sum."""
    ways: list[dict[int, int]] = [{0: 1}, *({} for _ in range(size))]
    for score in scores:
        for chosen in range(size, 0, -1):
            for total, count in ways[chosen - 1].items():
                ways[chosen][total + score] = ways[chosen].get(total + score, 0) + count
    return ways[size]


def in_words(cell: Measurement) -> str:
    """A censored cell for a sentence: ``not within 500 in 2 of 5 seeds, else 30 to 60``."""
    never = [seed.value for seed in cell.seeds if seed.beyond]
    reached = sorted(seed.value for seed in cell.seeds if not seed.beyond)
    text = f"not within {show(min(never))}"
    if len(cell.seeds) > 1:
        text += f" in {len(never)} of {len(cell.seeds)} seeds"
    if reached:
        ends = dict.fromkeys((show(reached[0]), show(reached[-1])))
        text += f", else {' to '.join(ends)}"
    return text
