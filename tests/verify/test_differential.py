"""The same numbers as scipy and statsmodels, to 1e-9, wherever they have the same thing."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint
from statsmodels.stats.weightstats import ttost_ind

from kit.verify.multiple import benjamini_hochberg, chance_limit, holm
from kit.verify.pairs import mcnemar, mcnemar_tails, tango, tango_score
from kit.verify.proportions import (
    Z90,
    Z95,
    Term,
    clopper_pearson,
    exact_tails,
    mover_score,
    mover_tails,
    newcombe,
    wilson,
)
from kit.verify.seeds import group, rounding, welch
from kit.verify.special import normal_tail

COUNTS = [(0, 50), (1, 50), (25, 50), (50, 50), (10, 208), (207, 208), (5, 868), (7021, 14042)]
CLOSE = {"rel": 1e-9, "abs": 1e-12}


@pytest.mark.parametrize(("k", "n"), COUNTS)
def test_wilson(k: int, n: int) -> None:
    assert wilson(k / n, n, Z95) == pytest.approx(
        proportion_confint(k, n, method="wilson"), **CLOSE
    )


@pytest.mark.parametrize(("k", "n"), COUNTS)
@pytest.mark.parametrize("level", [0.90, 0.95])
def test_clopper_pearson(k: int, n: int, level: float) -> None:
    theirs = proportion_confint(k, n, alpha=1 - level, method="beta")
    assert clopper_pearson(k, n, level) == pytest.approx(theirs, **CLOSE)


@pytest.mark.parametrize(("a", "b"), list(product(COUNTS, COUNTS)))
def test_newcombe(a: tuple[int, int], b: tuple[int, int]) -> None:
    ours = newcombe(a[0] / a[1], a[1], b[0] / b[1], b[1], Z95)
    theirs = confint_proportions_2indep(*a, *b, method="newcomb", compare="diff")
    assert ours == pytest.approx(theirs, **CLOSE)


@pytest.mark.parametrize(
    ("a", "b"), [((10, 208), (0, 208)), ((30, 50), (20, 50)), ((3, 8), (9, 9))]
)
@pytest.mark.parametrize("at", [-0.3, 0.0, 0.02])
def test_newcombe_inverted(a: tuple[int, int], b: tuple[int, int], at: float) -> None:
    """At the z that the inversion names, statsmodels' interval ends exactly at the value."""
    terms = (Term(1, a[0] / a[1], a[1]), Term(-1, b[0] / b[1], b[1]))
    z = mover_score(terms, at)
    alpha = 2 * normal_tail(abs(z))
    low, high = confint_proportions_2indep(*a, *b, method="newcomb", compare="diff", alpha=alpha)
    assert (low if z > 0 else high) == pytest.approx(at, abs=1e-9)
    above, below = mover_tails(terms, at)
    assert above + below == pytest.approx(1)
    assert (above < 0.5) == (z > 0)


@pytest.mark.parametrize(("k", "n"), COUNTS)
@pytest.mark.parametrize("value", [0.001, 0.05, 0.5, 0.99])
def test_exact_binomial(k: int, n: int, value: float) -> None:
    below, above = exact_tails(k, n, value)
    assert below == pytest.approx(stats.binomtest(k, n, value, "less").pvalue, **CLOSE)
    assert above == pytest.approx(stats.binomtest(k, n, value, "greater").pvalue, **CLOSE)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (6, 0), (10, 2), (12, 4), (5, 5), (0, 7), (300, 250)])
def test_mcnemar(b: int, c: int) -> None:
    theirs = sm_mcnemar(np.array([[0, b], [c, 0]]), exact=True).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(float(theirs), **CLOSE)
    more, fewer = (
        stats.binomtest(count, b + c, 0.5, "greater").pvalue if b + c else 1.0 for count in (b, c)
    )
    assert mcnemar_tails(b, c) == (pytest.approx(more, **CLOSE), pytest.approx(fewer, **CLOSE))


def _constrained_score(b: int, c: int, n: int, at: float) -> float:
    """Tango's statistic from its definition: q maximises the likelihood numerically."""

    def minus_log_likelihood(q: float) -> float:
        terms = [(b, q + at), (c, q), (n - b - c, 1 - 2 * q - at)]
        return -sum(x * np.log(max(p, 1e-300)) for x, p in terms if x)

    low, high = max(0.0, -at), (1 - at) / 2
    found = minimize_scalar(
        minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-13}
    )
    return float((b - c - n * at) / np.sqrt(n * (2 * found.x + at * (1 - at))))


@pytest.mark.parametrize(("b", "c", "n"), [(10, 2, 208), (3, 9, 50), (1, 1, 50), (40, 25, 868)])
@pytest.mark.parametrize("at", [-0.1, -0.01, 0.01, 0.05, 0.2])
def test_tango_score_is_the_constrained_likelihood(b: int, c: int, n: int, at: float) -> None:
    assert tango_score(b, c, n, at) == pytest.approx(_constrained_score(b, c, n, at), rel=1e-5)


@pytest.mark.parametrize("n", [50, 208, 14042])
def test_tango_without_flips_has_a_closed_form(n: int) -> None:
    assert tango(0, 0, n, Z95)[1] == pytest.approx(Z95**2 / (n + Z95**2), abs=1e-9)


@pytest.mark.parametrize(("b", "c", "n"), [(10, 2, 208), (0, 4, 50), (208, 0, 208), (7, 7, 30)])
def test_tango_limits_are_roots(b: int, c: int, n: int) -> None:
    low, high = tango(b, c, n, Z90)
    if low > -1:
        assert tango_score(b, c, n, low) == pytest.approx(Z90, abs=1e-6)
    if high < 1:
        assert tango_score(b, c, n, high) == pytest.approx(-Z90, abs=1e-6)


X = [Fraction(v) for v in ("4.1", "5.3", "6.2", "4.4")]
Y = [Fraction(v) for v in ("3.9", "7.1", "5.0")]


def test_welch() -> None:
    x, y = [float(v) for v in X], [float(v) for v in Y]
    theirs = stats.ttest_ind(x, y, equal_var=False)
    spread = welch(group(X), group(Y))
    assert spread is not None
    gap = float(group(X).mean - group(Y).mean)
    assert 2 * spread.tail(abs(gap)) == pytest.approx(float(theirs.pvalue), rel=1e-9)
    interval = theirs.confidence_interval(0.95)
    assert spread.interval(gap, 0.95) == pytest.approx((interval.low, interval.high), rel=1e-9)


@pytest.mark.parametrize("margin", [0.5, 1.5, 3.0, 5.0, 9.0])
def test_tost_is_the_90_percent_interval(margin: float) -> None:
    x, y = [float(v) for v in X], [float(v) for v in Y]
    p = float(ttost_ind(x, y, -margin, margin, usevar="unequal")[0])
    spread = welch(group(X), group(Y))
    assert spread is not None
    gap = float(group(X).mean - group(Y).mean)
    low, high = spread.interval(gap, 0.90)
    assert (p <= 0.05) == (-margin <= low and high <= margin)


@pytest.mark.parametrize(("k", "factor"), [(2, 15.6), (3, 4.97), (5, 3.04), (10, 2.37), (20, 2.14)])
def test_prediction_interval(k: int, factor: float) -> None:
    """Half-width in sd of one new run against k published seeds."""
    values = [Fraction(i) for i in range(k)]
    known = group(values)
    spread = welch(group([Fraction(0)]), known)
    assert spread is not None
    half = spread.interval(0.0, 0.95)[1]
    assert half / known.sd == pytest.approx(factor, abs=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_holm_and_benjamini_hochberg(seed: int) -> None:
    p = list(np.random.default_rng(seed).uniform(size=12) ** 2)
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], rel=1e-9)
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1], rel=1e-9)


@pytest.mark.parametrize("tested", [1, 10, 100, 200, 300])
def test_chance_limit(tested: int) -> None:
    assert chance_limit(tested) == stats.binom.ppf(0.99, tested, 0.05)


def test_tangos_interval_ends_where_differences_do() -> None:
    """At one end of the scale, or so near that nothing is between, it goes to that end."""
    for d in (1.0, 1 - 1e-12):
        low, high = tango(d, 0, 1, Z95)
        assert high == 1.0
        assert low < d
        assert tango(0, d, 1, Z95) == (-1.0, pytest.approx(-low))


@pytest.mark.parametrize("number", [0.0, 1e-30, 1.0, 3.0, -250.0, 98765.4321, 7.7e11])
def test_storage_in_twelve_digits_moves_no_number(number: float) -> None:
    """As far as its own digits go for a large number, as that of 1 for a small one, no further."""
    unit = rounding(1)
    assert rounding(number) == pytest.approx(unit * max(1.0, abs(number)))
    assert abs(float(f"{number:.12g}") - number) <= rounding(number)
    assert abs(float(f"{number:.6g}") - 98765.4321) > rounding(98765.4321)
