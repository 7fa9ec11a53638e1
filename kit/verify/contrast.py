"""Statistics under every claim: is ``a - w * b`` above or below a value?

The best pairing available decides: seeds with the same ids, else labels over the same items, else
independent groups. Where nothing random is recorded (a count of parameters, a single loss) the
numbers are compared as they stand, and the method says so.
"""

from __future__ import annotations

from fractions import Fraction
from math import inf, sqrt

from kit.manifest.printed import factor
from kit.verify.censored import Contrast, ordering
from kit.verify.measurement import Measurement
from kit.verify.numbers import scale_of
from kit.verify.pairs import ItemsDiffer, discordance, tango_tails
from kit.verify.proportions import (
    FAR,
    Ratio,
    Term,
    exact_tails,
    mover_tails,
    ratio_difference,
    shrunk_sd,
)
from kit.verify.seeds import Spread, combined, group, item_sd, mean_spread, seed_group
from kit.verify.special import normal_tail, root

PLAIN = "as measured, without uncertainty"
OUTSIDE = "outside 0 to 1"
EQUAL = "all seeds give the same number, compared as it stands"


def contrast(
    a: Measurement, b: Measurement | None, at: Fraction, weight: Fraction = Fraction(1)
) -> Contrast:
    """Test ``a - weight * b`` (or ``a`` alone) against ``at``, in the unit of ``a``.

    Raises:
        ValueError: The units of the two cells cannot be converted.
    """
    if b is not None:
        ratio = factor(b.unit, a.unit)
        if ratio is None:
            raise ValueError(f"units {a.unit!r} ({a.id}) and {b.unit!r} ({b.id}) do not compare")
        weight *= ratio
    if a.censored or (b is not None and b.censored):
        return ordering(a, b, at, weight)
    assert a.value is not None
    if b is None:
        return _alone(a, a.value - at, at)
    assert b.value is not None
    estimate = a.value - weight * b.value - at
    if weight == 1 and a.ratio is not None:
        return _ratios(a.ratio, b, estimate, at)
    common = [(x, y) for x in a.seeds for y in b.seeds if x.id == y.id]
    if len(common) >= 2:
        return _paired_seeds(a, b, [x.value - weight * y.value - at for x, y in common], weight)
    if a.seeds or b.seeds or not (a.proportion and b.proportion):
        return _groups(a, b, estimate, weight)
    share = float(weight) * scale_of(b.unit) / scale_of(a.unit)
    return _proportions(a, b, estimate, at, share)


def _alone(a: Measurement, estimate: Fraction, at: Fraction) -> Contrast:
    if a.seeds:
        spread = mean_spread(seed_group(a))
        if spread is None:
            return Contrast(estimate, None, None, EQUAL)
        return Contrast(estimate, *spread.tails(float(estimate)), f"one-sided t, {spread.how}")
    if not a.proportion:
        if a.ratio is None:
            return Contrast(estimate, None, None, PLAIN)
        tails = a.ratio.tails(float(at) / scale_of(a.unit))
        return Contrast(estimate, *tails, a.ratio.how)
    (k, n), value = a.counted, float(at) / scale_of(a.unit)
    if value > 1:
        return Contrast(estimate, 1.0, 0.0, OUTSIDE)
    if value < 0:
        return Contrast(estimate, 0.0, 1.0, OUTSIDE)
    below, above = exact_tails(k, n, value)
    return Contrast(estimate, above, below, f"exact binomial, {k} of {n}")


def _ratios(here: Ratio, b: Measurement, estimate: Fraction, at: Fraction) -> Contrast:
    """A ratio of proportions against another (as if of other items) or against a plain number."""
    assert b.value is not None
    scale = scale_of(b.unit)
    other, edge = float(b.value) / scale, float(at) / scale
    end, sign = (0, 1.0) if estimate > 0 else (1, -1.0)

    def gap(z: float) -> float:
        return ratio_difference(here, b.ratio, other, z)[end] - edge

    z = sign * root(gap, 0.0, FAR, 1e-9) if estimate else 0.0
    return Contrast(estimate, normal_tail(z), normal_tail(-z), f"{here.how}s, taken as independent")


def _paired_seeds(
    a: Measurement, b: Measurement, differences: list[Fraction], weight: Fraction
) -> Contrast:
    """One-sided t over the differences of paired seeds.

    All differences equal: item sampling of the two proportions stands in for the spread. For other
    numbers nothing random is seen when the values are equal too (a count of parameters); when they
    vary, the sign test, ``2^-m``, which assumes nothing.
    """
    observed = group(differences)
    m, mean = observed.size, float(observed.mean)
    method = f"{m} paired seeds"
    if observed.sd > 0:
        spread = Spread(observed.sd / sqrt(m), m - 1, "")
        return Contrast(observed.mean, *spread.tails(mean), f"{method}, one-sided t")
    floors = (item_sd(a), item_sd(b))
    if floors[0] is not None and floors[1] is not None:
        error = sqrt(floors[0] ** 2 + (float(weight) * floors[1]) ** 2) / sqrt(m)
        spread = Spread(error, m - 1, "")
        return Contrast(
            observed.mean, *spread.tails(mean), f"{method} without spread, item sampling"
        )
    if len({seed.value for seed in a.seeds}) == 1:
        return Contrast(observed.mean, None, None, EQUAL)
    above = 0.5**m if mean > 0 else 1.0
    below = 0.5**m if mean < 0 else 1.0
    return Contrast(observed.mean, above, below, f"{method} with equal differences, sign test")


def _groups(a: Measurement, b: Measurement, estimate: Fraction, weight: Fraction) -> Contrast:
    """Independent groups of any kind: Welch with Satterthwaite's degrees of freedom."""
    variance, df = combined([_part(a, 1.0), _part(b, float(weight))])
    if variance == 0:
        return Contrast(estimate, None, None, EQUAL if a.seeds or b.seeds else PLAIN)
    spread = Spread(sqrt(variance), df, "")
    return Contrast(estimate, *spread.tails(float(estimate)), "Welch t of independent groups")


def _part(cell: Measurement, weight: float) -> tuple[float, float]:
    """Variance of a cell's mean and its degrees of freedom."""
    if cell.seeds:
        spread = mean_spread(seed_group(cell))
        return ((weight * spread.error) ** 2, spread.df) if spread else (0.0, inf)
    if cell.proportion:
        assert cell.value is not None
        assert cell.n is not None
        scale = scale_of(cell.unit)
        sd = scale * shrunk_sd(float(cell.value) / scale, cell.n)
        return (weight * sd) ** 2, inf
    return 0.0, inf


def _proportions(
    a: Measurement, b: Measurement, estimate: Fraction, at: Fraction, weight: float
) -> Contrast:
    """Paired labels (exact McNemar at 0, Tango elsewhere), else Newcombe's interval inverted."""
    value = float(at) / scale_of(a.unit)
    if weight == 1.0:
        here, there = a.read_labels(), b.read_labels()
        if here is not None and there is not None and here.items and there.items:
            try:
                more, fewer, n = discordance(here, there)
            except ItemsDiffer:
                pass
            else:
                above, below = tango_tails(more, fewer, n, value)
                how = f"paired labels: {more} only in the first, {fewer} only in the second of {n}"
                return Contrast(estimate, above, below, how)
    (k, n), (k_b, n_b) = a.counted, b.counted
    terms = (Term(1, k / n, n), Term(-weight, k_b / n_b, n_b))
    above, below = mover_tails(terms, value)
    return Contrast(estimate, above, below, "score interval of two proportions")
