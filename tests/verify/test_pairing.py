"""Replicates of a run and of its reference brought together by their ids."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kit.manifest.expectation_types import Reference
from kit.results.types import Cell, SeedValue
from kit.verify.seeds import matched
from kit.verify.verdict import CellReport
from tests.verify.builders import expected_cell, one, tolerance

PAIRS = {"newer-0": 0, "newer-1": 4, "newer-2": 55, "newer-3": 20, "newer-4": 90}


def fractions(of: Mapping[str, float]) -> dict[str, Fraction]:
    return {id: Fraction(repr(value)) for id, value in of.items()}


def known(values: Mapping[str, float]) -> Reference:
    numbers = list(values.values())
    return Reference(
        mean=f"{fmean(numbers):.12g}",
        sd=f"{stdev(numbers):.12g}",
        n_seeds=len(numbers),
        values=[f"{value:.12g}" for value in numbers],
        seeds=list(values),
        record="made",
    )


def report(here: Mapping[str, float], there: Mapping[str, float], **fields: str) -> CellReport:
    unit = fields.get("unit", "percent")
    rule = tolerance("seeds", margin="5")
    expected = expected_cell(
        value=None, unit=unit, status="reference", reference=known(there), tolerance=rule
    )
    seeds = [
        SeedValue(seed=id, value=v, k=round(2 * v), n=200)
        if unit == "percent"
        else SeedValue(seed=id, value=v)
        for id, v in here.items()
    ]
    mean = fmean(here.values())
    return one(expected, Cell(id=expected.id, unit=unit, value=mean, seeds=seeds))


def two_seeds(noise: float = 0.5) -> dict[str, float]:
    return {f"{p}/{s}": v + noise * (s == 2) for p, v in PAIRS.items() for s in (1, 2)}


@given(
    st.dictionaries(st.sampled_from([f"p{i}/{s}" for i in range(4) for s in range(3)]),
                    st.integers(0, 100), min_size=1),
    st.permutations(range(4)),
)  # fmt: skip
def test_ids_not_order_decide(there: dict[str, int], order: list[int]) -> None:
    values = fractions(there)
    assert matched(values, values) == {id: (value, value) for id, value in values.items()}
    turned = dict(sorted(values.items(), key=lambda item: order[int(item[0][1])]))
    assert matched(turned, values) == matched(values, values)


def test_new_seeds_of_the_same_pairs_meet_by_pair() -> None:
    here = fractions({f"{pair}/7": value + 1 for pair, value in PAIRS.items()})
    found = matched(here, fractions(two_seeds(2.0)))
    assert found == {pair: (Fraction(v + 1), Fraction(v + 1)) for pair, v in PAIRS.items()}


def test_part_of_the_pairs_and_the_other_order_of_axes() -> None:
    there = fractions(two_seeds())
    assert list(matched(fractions({"newer-2/9": 50.0, "newer-0/9": 1.0}), there)) == [
        "newer-2",
        "newer-0",
    ]
    turned = {"/".join(reversed(id.split("/"))): value for id, value in there.items()}
    assert list(matched(fractions({"9/newer-2": 50.0}), turned)) == ["newer-2"]


@pytest.mark.parametrize(
    "here", [{}, {"other-5/1": 1.0, "newer-0/9": 1.0}, {"newer-0": 1.0}, {"other-1/8": 1.0}]
)
def test_other_replicates_do_not_meet(here: dict[str, float]) -> None:
    assert matched(fractions(here), fractions(two_seeds())) == {}


@pytest.mark.parametrize("shift", [8.0, -8.0])
def test_a_shift_that_all_pairs_share_is_seen(shift: float) -> None:
    """Pairs spread over 90 points, so that without pairing nothing could be seen."""
    rates = {pair: value + 8 for pair, value in PAIRS.items() if value < 90}
    noise = [0.5, -1.0, 0.0, 1.5]
    here = {f"{p}/9": v + shift + e for (p, v), e in zip(rates.items(), noise, strict=True)}
    there = {f"{p}/{s}": float(v) for p, v in rates.items() for s in (1, 2)}
    found = report(here, there)
    assert found.verdict == "deviates"
    assert found.p == pytest.approx(
        stats.ttest_1samp([shift + e for e in noise], 0.0).pvalue, rel=1e-6
    )
    strangers = {f"x{id}": value for id, value in here.items()}
    assert report(strangers, there).verdict == "inconclusive"


def test_equal_differences_of_proportions_have_the_noise_of_their_items() -> None:
    there = {f"{p}/{s}": float(v) for p, v in PAIRS.items() for s in (1, 2)}
    moved = {f"{p}/9": float(v + 8) for p, v in PAIRS.items() if v < 90}
    found = report(moved, there)
    assert found.verdict == "deviates"
    assert "item sampling" in found.detail
    assert report({f"{p}/9": float(v) for p, v in PAIRS.items()}, there).verdict == "match"


def test_equal_differences_of_other_numbers_show_nothing() -> None:
    there = {f"{p}/{s}": float(v) for p, v in PAIRS.items() for s in (1, 2)}
    moved = {f"{p}/9": v + 8.0 for p, v in PAIRS.items()}
    assert report(moved, there, unit="norm").verdict == "inconclusive"


def test_replicates_without_a_difference_are_no_degrees_of_freedom() -> None:
    """Four of ten pairs differ, all one way: an eighth of all true replications look like that."""
    there = {f"p{i}/{s}": 40.0 for i in range(10) for s in (1, 2)}
    few = {f"p{i}/9": 40.0 + (18.0 + i) * (i < 4) for i in range(10)}
    p = report(few, there).p
    assert p is not None
    assert p > 0.05
    gaps = [value - 40 for value in few.values()]
    t = stats.ttest_1samp(gaps, 0.0).statistic
    assert p == pytest.approx(2 * stats.t.sf(t, 3), rel=1e-9)


def test_true_replications_rarely_deviate() -> None:
    """Pairs far apart, seeds of a pair normal around it: 5 % are asked."""
    random, deviating = np.random.default_rng(0), 0
    for _ in range(400):
        draws = random.normal(0, 12, (5, 3))
        rows = {pair: 500 + 10 * v + d for (pair, v), d in zip(PAIRS.items(), draws, strict=True)}
        there = {f"{p}/{s}": float(row[s]) for p, row in rows.items() for s in (1, 2)}
        here = {f"{p}/9": float(row[0]) for p, row in rows.items()}
        deviating += report(here, there, unit="norm").verdict == "deviates"
    assert deviating <= 20 + 3 * 4.4
    assert deviating > 4


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("gap", [0.5, 3.0])
def test_the_seeds_that_are_asked_for_decide(paired: bool, gap: float) -> None:
    """A fifth more seeds of the same mean and spread decide, a quarter fewer do not."""

    def made(count: int, mean: float, name: str) -> dict[str, float]:
        wave = np.array([(-1) ** i * (1 + i % 3) for i in range(count - count % 2)], dtype=float)
        wave = (wave - wave.mean()) / wave.std(ddof=1) * 4
        return {f"{name}{i}": 50 + mean + float(v) for i, v in enumerate(wave)}

    def asked(count: int, there: int) -> CellReport:
        if not paired:
            return report(made(count, gap, "a"), made(there, 0.0, "b"), unit="norm")
        here = made(count, gap, "a")
        return report(here, dict.fromkeys(here, 50.0), unit="norm")

    few = asked(4, 4)
    assert few.verdict == "inconclusive"
    assert few.needed is not None
    count = int(few.needed.split()[1].replace(",", ""))
    both, enough = "both sides" in few.needed, 2 * round(1.2 * count / 2 + 0.5)
    assert asked(enough, enough if both else 4).verdict != "inconclusive"
    less = 2 * int(0.75 * count / 2)
    assert asked(less, less if both else 4).verdict == "inconclusive"
