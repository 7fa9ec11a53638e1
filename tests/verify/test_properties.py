"""Properties that hold for every table, found by looking for counterexamples."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kit.manifest.expectation_types import ExpectedCell
from kit.results.types import Cell, SeedValue
from kit.verify.kinds.items import binomial, flip, paired
from kit.verify.numbers import printed
from kit.verify.verdict import CellReport
from tests.verify.builders import expected_cell, one, reference, share, tolerance

SIZES = st.sampled_from([10, 50, 208, 868, 14042])
SEEN = {"match": 3, "reproduced": 2, "inconclusive": 1, "deviates": 1, "invalid": 0}
"""How much agreement a verdict claims; ``deviates`` claims none."""


@st.composite
def proportions(draw: Any) -> tuple[int, int, int]:
    n = draw(SIZES)
    return draw(st.integers(0, n)), draw(st.integers(0, n)), n


MARGINS = st.integers(0, 400).map(lambda tenths: Fraction(tenths, 10))


def _binomial(k: int, n: int, k0: int, margin: Fraction, scale: int = 1) -> Any:
    said = printed(f"{100 * k0 / n:.6f}", "percent")
    return binomial(k * scale, n * scale, said, margin, "percent", n * scale, k0 * scale)


@given(proportions(), MARGINS)
@settings(deadline=None)
def test_binomial_is_symmetric(pair: tuple[int, int, int], margin: Fraction) -> None:
    """Exchanging published and measured turns the interval round and keeps the verdict."""
    k, k0, n = pair
    here, there = _binomial(k, n, k0, margin), _binomial(k0, n, k, margin)
    assert here.verdict == there.verdict
    assert here.interval is not None
    assert there.interval is not None
    assert abs(here.interval.low + there.interval.high) < 1e-9
    assert abs(here.p - there.p) < 1e-9


@given(proportions(), MARGINS)
@settings(deadline=None)
def test_success_and_failure_are_symmetric(pair: tuple[int, int, int], margin: Fraction) -> None:
    """Counting failures instead of successes changes no verdict."""
    k, k0, n = pair
    assert _binomial(k, n, k0, margin).verdict == _binomial(n - k, n, n - k0, margin).verdict


@given(proportions(), MARGINS, MARGINS)
@settings(deadline=None)
def test_a_wider_margin_never_loses_a_reproduction(
    pair: tuple[int, int, int], one_: Fraction, two: Fraction
) -> None:
    k, k0, n = pair
    narrow, wide = sorted((one_, two))
    assert SEEN[_binomial(k, n, k0, narrow).verdict] <= SEEN[_binomial(k, n, k0, wide).verdict]


@given(proportions(), MARGINS, st.integers(2, 20))
@settings(deadline=None)
def test_binomial_never_better_when_evidence_shrinks(
    pair: tuple[int, int, int], margin: Fraction, scale: int
) -> None:
    """The same proportions on fewer items: nothing is shown that more items do not show."""
    k, k0, n = pair
    less, more = _binomial(k, n, k0, margin), _binomial(k, n, k0, margin, scale)
    if less.verdict == "reproduced":
        assert more.verdict == "reproduced"
    if less.verdict == "deviates":
        assert more.verdict in ("deviates", "reproduced")
        assert more.shifted or more.verdict == "deviates"


@given(st.integers(0, 40), st.integers(0, 40), SIZES, MARGINS)
@settings(deadline=None)
def test_paired_is_symmetric(b: int, c: int, n: int, margin: Fraction) -> None:
    assume(b + c <= n)
    here, there = paired(b, c, n, margin, None, "percent"), paired(c, b, n, margin, None, "percent")
    assert here.verdict == there.verdict
    assert here.p == there.p


@given(st.integers(0, 40), st.integers(0, 40), SIZES, st.integers(2, 9), MARGINS)
@settings(deadline=None)
def test_paired_equivalence_survives_more_items(
    b: int, c: int, n: int, scale: int, margin: Fraction
) -> None:
    assume(0 < b + c <= n)
    less = paired(b, c, n, margin, None, "percent")
    more = paired(b * scale, c * scale, n * scale, margin, None, "percent")
    if less.verdict == "reproduced":
        assert more.verdict == "reproduced"


@given(st.integers(0, 40), st.integers(0, 40), SIZES, MARGINS, st.integers(0, 100))
@settings(deadline=None)
def test_stricter_flip_rate_never_helps(
    b: int, c: int, n: int, margin: Fraction, tenths: int
) -> None:
    assume(b + c <= n)
    strict = paired(b, c, n, margin, Fraction(tenths, 1000), "percent")
    assert SEEN[strict.verdict] <= SEEN[paired(b, c, n, margin, None, "percent").verdict]


@given(proportions(), MARGINS, MARGINS, st.integers(0, 100))
@settings(deadline=None, max_examples=60)
def test_flip_monotone_in_the_margin(
    pair: tuple[int, int, int], one_: Fraction, two: Fraction, rate: int
) -> None:
    k, k0, n = pair
    narrow, wide = sorted((one_, two))

    def verdict(margin: Fraction) -> int:
        said, f = printed(f"{100 * k0 / n:.6f}"), Fraction(rate, 1000)
        zero = Fraction(0)
        return SEEN[flip(k, n, said, Fraction(k0), zero, margin, f, "percent").verdict]

    assert verdict(narrow) <= verdict(wide)


@given(proportions(), st.sampled_from(["binomial", "absolute", "flip", "bound", "exact"]))
@settings(deadline=None, max_examples=60)
def test_percent_and_fraction_give_one_verdict(pair: tuple[int, int, int], kind: str) -> None:
    """Expectation and table may each be in percent or fraction: four ways, one verdict."""
    k, k0, n = pair
    fields: dict[str, tuple[str, str]] = {
        "exact": ("", ""),
        "bound": ("bound", "5"),
    }.get(kind, ("margin", "5"))  # type: ignore[assignment]
    name, margin = fields
    extra = {"flip": {"flip_rate": "0.02"}, "bound": {"side": "at_most"}}.get(kind, {})
    reports: list[CellReport] = []
    for unit, text, size in (
        ("percent", f"{100 * k0 / n:.2f}", margin),
        ("fraction", f"{k0 / n:.4f}", f"0.0{margin}"),
    ):
        assume(Fraction(f"{100 * k0 / n:.2f}") == 100 * Fraction(f"{k0 / n:.4f}"))
        rule = tolerance(kind, **({name: size} if name else {}), **extra)
        cell: ExpectedCell = expected_cell(value=text, unit=unit, n=n, tolerance=rule)
        reports += [one(cell, share("t/a", k, n, measured)) for measured in ("percent", "fraction")]
    assert len({report.verdict for report in reports}) == 1
    first, last = reports[0], reports[-1]
    assert first.difference is not None
    assert last.difference is not None
    assert abs(first.difference - 100 * last.difference) < 1e-9


VALUES = st.lists(st.integers(0, 1000).map(lambda v: v / 10), min_size=2, max_size=5)


def _seeds(values: list[float], known: list[float], margin: str, unit: str = "percent") -> Any:
    whole = 1.0 if unit == "percent" else 100.0
    cell = expected_cell(
        value=None,
        unit=unit,
        status="reference",
        reference=reference([repr(v / whole) for v in known]),
        tolerance=tolerance("seeds", margin=margin),
    )
    mine = [SeedValue(seed=str(i), value=v / whole) for i, v in enumerate(values)]
    mean = sum(v.value for v in mine) / len(mine)
    return one(cell, Cell(id="t/a", unit=unit, value=mean, seeds=mine))


@given(VALUES, VALUES)
@settings(deadline=None)
def test_seeds_are_symmetric(here: list[float], there: list[float]) -> None:
    first, second = _seeds(here, there, "5"), _seeds(there, here, "5")
    assert first.verdict == second.verdict


@given(VALUES, VALUES)
@settings(deadline=None)
def test_seeds_in_percent_or_fraction(here: list[float], there: list[float]) -> None:
    assert _seeds(here, there, "5").verdict == _seeds(here, there, "0.05", "fraction").verdict


@given(VALUES, VALUES, st.integers(0, 50), st.integers(0, 50))
@settings(deadline=None)
def test_seeds_monotone_in_the_margin(
    here: list[float], there: list[float], one_: int, two: int
) -> None:
    narrow, wide = sorted((one_, two))
    less, more = _seeds(here, there, str(narrow)), _seeds(here, there, str(wide))
    assert SEEN[less.verdict] <= SEEN[more.verdict] or more.verdict == "inconclusive"


@st.composite
def close_values(draw: Any) -> tuple[list[float], list[float]]:
    """Seeds of two runs that differ by little, so that their equivalence can be shown."""
    base = draw(st.integers(0, 990))
    values = st.lists(st.integers(base, base + 10).map(lambda v: v / 10), min_size=2, max_size=5)
    return draw(values), draw(values)


@given(close_values(), st.integers(2, 4))
@settings(deadline=None)
def test_seeds_equivalence_survives_more_seeds(
    values: tuple[list[float], list[float]], times: int
) -> None:
    """Every seed seen several times over: what was shown with fewer stays shown."""
    here, there = values
    less, more = _seeds(here, there, "5"), _seeds(here * times, there * times, "5")
    assume(less.verdict in ("reproduced", "match"))
    assert more.verdict in ("reproduced", "match")


@given(st.integers(0, 50), SIZES, st.integers(2, 9), st.integers(0, 100))
@settings(deadline=None)
def test_bound_never_better_when_evidence_shrinks(k: int, n: int, scale: int, edge: int) -> None:
    assume(k <= n)
    rule = tolerance("bound", bound=str(edge), side="at_most")
    cell = expected_cell(value=None, tolerance=rule)
    less, more = one(cell, share("t/a", k, n)), one(cell, share("t/a", k * scale, n * scale))
    if less.verdict == "reproduced":
        assert more.verdict == "reproduced"
    if less.verdict == "deviates":
        assert more.verdict == "deviates"
