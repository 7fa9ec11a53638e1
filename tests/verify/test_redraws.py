"""What the self-test redraws: from which truth, and the power that theory gives it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import isnan, nan, sqrt
from statistics import stdev
from typing import Any, cast

import pytest
from scipy import stats
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_effectsize

from kit.manifest.expectation_types import ExpectedCell
from kit.results.types import Cell
from kit.verify.finding import Finding
from kit.verify.measurement import Measurement, measure
from kit.verify.simulate import Experiment, experiment
from tests.verify.builders import (
    expected_cell,
    reference,
    seeded,
    seeded_shares,
    share,
    tolerance,
    trajectory_cell,
)

Z = float(stats.norm.ppf(0.975))


class Fixed:
    """A random generator that gives what it is asked to, and keeps what it was asked for."""

    def __init__(self, gives: Any) -> None:
        self.gives, self.asked = gives, cast(tuple[Any, ...], ())

    def _given(self, *asked: Any) -> Any:
        self.asked = asked
        return self.gives

    multinomial = binomial = normal = _given


def redrawn(
    expected: ExpectedCell, cell: Cell, shift: float
) -> tuple[Experiment | None, list[Measurement]]:
    """The experiment, and the list of what it will have given to the comparison."""
    seen: list[Measurement] = []

    def judge(drawn: Measurement) -> Finding:
        seen.append(drawn)
        return Finding("match", "")

    made = measure(cell, expected.unit, "results.json", None, [])
    return experiment(expected, made, judge, shift), seen


def two_sided(distance: float, threshold: float, sd: float) -> float:
    """P(|X| > threshold), X normal around the distance."""
    return float(stats.norm.sf(threshold, distance, sd) + stats.norm.cdf(-threshold, distance, sd))


FLIP = tolerance("flip", margin="5", flip_rate="0.1")
SEEDS = tolerance("seeds", margin="5")
AT_MOST = tolerance("bound", bound="20", side="at_most")


@pytest.mark.parametrize("unit", ["percent", "fraction"])
@pytest.mark.parametrize("shift", [0.0, 0.05, -0.05])
@pytest.mark.parametrize("f", ["0.1", "0.4"])
def test_flips_are_drawn_around_the_published_count(unit: str, shift: float, f: str) -> None:
    """Either way a share f / 2, and as many more one way as the shift asks."""
    whole = 100.0 if unit == "percent" else 1.0
    rule = tolerance("flip", margin="5", flip_rate=f)
    expected = expected_cell(value=repr(0.2 * whole), unit=unit, n=50, tolerance=rule)
    plan, seen = redrawn(expected, share("t/a", 11, 50, unit), shift * whole)
    assert plan is not None
    random = Fixed((7, 3, 40))
    plan.draw(random)
    up, down = float(f) / 2 + max(shift, 0), float(f) / 2 + max(-shift, 0)
    assert random.asked[0] == 50
    assert random.asked[1] == pytest.approx([up, down, 1 - up - down])
    (drawn,) = seen
    assert (drawn.k, drawn.n, drawn.unit) == (10 + 7 - 3, 50, unit)
    assert drawn.value == Fraction(14, 50) * int(whole)
    sd = sqrt(50 * (up + down - shift * shift))
    known = two_sided(50 * abs(shift), Z * sqrt(50 * float(f)), sd)
    assert plan.power == pytest.approx(known, rel=1e-6)


@pytest.mark.parametrize(
    ("value", "flips", "k"),
    [("96", (9, 0), 50), ("4", (0, 9), 0), ("96", (9, 1), 49), ("4", (1, 9), 1), ("0", (0, 5), 0)],
)
def test_no_more_items_flip_than_there_are(value: str, flips: tuple[int, int], k: int) -> None:
    expected = expected_cell(value=value, n=50, tolerance=FLIP)
    plan, seen = redrawn(expected, share("t/a", 11, 50), 0.0)
    assert plan is not None
    plan.draw(Fixed((*flips, 0)))
    assert [drawn.k for drawn in seen] == [k]


@pytest.mark.parametrize(
    ("value", "shift", "asked"),
    [
        ("0", 100.0, [1.0, 0.05, 0.0]),
        ("100", -100.0, [0.05, 1.0, 0.0]),
        ("95", 20, [0.1, 0.05, 0.85]),
        ("5", -20, [0.05, 0.1, 0.85]),
    ],
)
def test_chances_stay_between_0_and_1(value: str, shift: float, asked: list[float]) -> None:
    """A truth beyond the end of the scale is its end."""
    expected = expected_cell(value=value, n=50, tolerance=FLIP)
    plan, _ = redrawn(expected, share("t/a", 11, 50), shift)
    assert plan is not None
    random = Fixed((0, 0, 50))
    plan.draw(random)
    assert random.asked[1] == pytest.approx(asked, abs=1e-12)
    assert all(0 <= chance <= 1 for chance in random.asked[1])


def test_all_items_flipped_and_none_by_chance_is_surely_seen() -> None:
    rule = tolerance("flip", margin="5", flip_rate="0")
    plan, _ = redrawn(expected_cell(value="0", n=50, tolerance=rule), share("t/a", 11, 50), 100.0)
    assert plan is not None
    assert plan.power == pytest.approx(1)


@pytest.mark.parametrize("flips", [(12, 1), (1, 12), (0, 0)])
def test_paired_labels_are_compared_by_their_flips(flips: tuple[int, int]) -> None:
    """Two percent of flips where none is declared; the finding is that of the flips themselves."""
    rule = tolerance("paired", margin="5")
    expected = expected_cell(value="40", n=200, tolerance=rule)
    plan, seen = redrawn(expected, share("t/a", 80, 200), 0.0)
    assert plan is not None
    random = Fixed((*flips, 0))
    found = plan.draw(random)
    assert random.asked[1] == pytest.approx([0.01, 0.01, 0.98])
    assert found.difference == pytest.approx(100 * (flips[0] - flips[1]) / 200)
    assert found.margin == 5
    assert found.p == pytest.approx(
        stats.binomtest(flips[0], sum(flips)).pvalue if sum(flips) else 1.0
    )
    assert seen == []
    assert plan.power == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("published", [100, None])
@pytest.mark.parametrize("shift", [0.0, 7.0, -7.0])
def test_proportions_have_the_power_of_cohens_h(published: int | None, shift: float) -> None:
    """The published number is drawn once, so that only this run's items vary."""
    expected = expected_cell(value="20", n=published)
    plan, seen = redrawn(expected, share("t/a", 11, 50), shift)
    assert plan is not None
    random = Fixed(13)
    plan.draw(random)
    assert random.asked == (50, pytest.approx((20 + shift) / 100))
    assert [(drawn.k, drawn.n) for drawn in seen] == [(13, 50)]
    h = proportion_effectsize((20 + shift) / 100, 0.2)
    threshold = Z * sqrt(1 / 50 + 1 / (published or 50))
    assert plan.power == pytest.approx(two_sided(h, threshold, sqrt(1 / 50)), rel=1e-6)


@pytest.mark.parametrize(("value", "shift", "p"), [("95", 20.0, 1.0), ("5", -20.0, 0.0)])
def test_a_share_ends_where_the_scale_does(value: str, shift: float, p: float) -> None:
    plan, _ = redrawn(expected_cell(value=value, n=50), share("t/a", 11, 50), shift)
    assert plan is not None
    random = Fixed(1)
    plan.draw(random)
    assert random.asked == (50, p)


@pytest.mark.parametrize("shift", [0.0, 4.0, -9.0])
def test_a_bound_has_the_power_of_a_one_sided_test_of_one_proportion(shift: float) -> None:
    expected = expected_cell(value=None, tolerance=AT_MOST)
    plan, seen = redrawn(expected, share("t/a", 11, 50), shift)
    assert plan is not None
    h = abs(proportion_effectsize((20 + shift) / 100, 0.2))
    power = NormalIndPower(ddof=0).power(h, 50, 0.05, ratio=0, alternative="larger")
    assert plan.power == pytest.approx(power, rel=1e-5)
    plan.draw(Fixed(20))
    assert seen[0].value == 40


# Over seeds.


def values_of(drawn: Measurement) -> list[tuple[str, float]]:
    return [(seed.id, float(seed.value)) for seed in drawn.seeds]


@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0])
@pytest.mark.parametrize("known", [["49", "51", "50.6", "50.2"], ["50", "50"]])
def test_seeds_are_normal_with_the_spread_of_the_reference_else_of_this_run(
    known: list[str], shift: float
) -> None:
    expected = expected_cell(
        value=None, status="reference", reference=reference(known), tolerance=SEEDS
    )
    own = [48.0, 50.0, 53.0]
    plan, seen = redrawn(expected, seeded("t/a", own), shift)
    assert plan is not None
    numbers = [float(text) for text in known]
    sd = stdev(numbers) or stdev(own)
    random = Fixed([47.25, 50.5, 54.0])
    plan.draw(random)
    mean = sum(numbers) / len(numbers)
    assert random.asked == (pytest.approx(mean + shift), pytest.approx(sd), 3)
    (drawn,) = seen
    assert values_of(drawn) == [("0", 47.25), ("1", 50.5), ("2", 54.0)]
    assert float(drawn.value or 0) == pytest.approx((47.25 + 50.5 + 54.0) / 3)
    k = len(known)
    critical = stats.t.ppf(0.975, 3 + k - 2) * sd * sqrt(1 / 3 + 1 / k)
    assert plan.power == pytest.approx(two_sided(abs(shift), critical, sd / sqrt(3)), rel=1e-6)


@pytest.mark.parametrize("own", [[48.0, 50.0, 53.0], [48.0, 53.0]])
def test_a_printed_number_counts_as_a_single_seed(own: list[float]) -> None:
    m = len(own)
    plan, _ = redrawn(expected_cell(value="50", tolerance=SEEDS), seeded("t/a", own), 3.0)
    assert plan is not None
    sd = stats.tstd(own)
    critical = stats.t.ppf(0.975, m - 1) * sd * sqrt(1 / m + 1)
    assert plan.power == pytest.approx(two_sided(3.0, critical, sd / sqrt(m)), rel=1e-6)


@pytest.mark.parametrize("shift", [0.0, 2.0, -4.0])
def test_a_bound_over_seeds_has_the_power_of_a_one_sided_t(shift: float) -> None:
    own = [18.0, 20.0, 23.0, 19.0]
    expected = expected_cell(value=None, tolerance=AT_MOST)
    plan, seen = redrawn(expected, seeded("t/a", own), shift)
    assert plan is not None
    sd = stats.tstd(own)
    power = stats.norm.sf(stats.t.ppf(0.95, 3), abs(shift) / (sd / 2))
    assert plan.power == pytest.approx(power, rel=1e-6)
    random = Fixed([1.0, 2.0, 3.0, 4.0])
    plan.draw(random)
    assert random.asked == (20 + shift, pytest.approx(sd), 4)
    assert seen[0].value == Fraction(5, 2)


# What is not redrawn, and what is moved only.


def kinds() -> Sequence[tuple[ExpectedCell, Cell, str]]:
    several, plain = seeded("t/a", [48.0, 50.0, 53.0]), Cell(id="t/a", unit="percent", value=50.0)
    counted, over = share("t/a", 10, 50), seeded_shares("t/a", [10, 11, 14], 50)
    known = reference(["50", "51"])
    absolute, relative = tolerance("absolute", margin="5"), tolerance("relative", margin="0.1")
    curve = tolerance("trajectory", margin="5")
    return [
        (expected_cell(value="20", tolerance=None), counted, "nothing"),
        (expected_cell(value=None), counted, "nothing"),
        (expected_cell(value="20", tolerance=curve), counted, "nothing"),
        (expected_cell(value="20"), Cell(id="t/a", unit="percent"), "nothing"),
        (expected_cell(value="20"), over, "nothing"),
        (expected_cell(value="20", tolerance=FLIP), over, "nothing"),
        (expected_cell(value="20", tolerance=SEEDS), seeded("t/a", [20.0, 20.0]), "nothing"),
        (expected_cell(value="20", tolerance=absolute), counted, "moved"),
        (expected_cell(value="20", tolerance=absolute), over, "moved"),
        (expected_cell(value="20", tolerance=absolute), several, "moved"),
        (expected_cell(value="20", tolerance=tolerance("exact")), counted, "moved"),
        (expected_cell(value="20", tolerance=relative), counted, "moved"),
        (expected_cell(value="20", tolerance=SEEDS), counted, "moved"),
        (expected_cell(value="20"), plain, "moved"),
        (expected_cell(value="20", tolerance=AT_MOST), plain, "moved"),
        (expected_cell(value="20", tolerance=FLIP), several, "moved"),
        (expected_cell(value="70", reference=known, tolerance=absolute), counted, "reference"),
        (expected_cell(value=None, reference=known), plain, "reference"),
        (expected_cell(value="20"), counted, "drawn"),
        (expected_cell(value="20", tolerance=FLIP), counted, "drawn"),
        (expected_cell(value="20", tolerance=AT_MOST), counted, "drawn"),
        (expected_cell(value="20", tolerance=SEEDS), several, "drawn"),
        (expected_cell(value="20", tolerance=SEEDS), over, "drawn"),
        (expected_cell(value="70", tolerance=AT_MOST), several, "drawn"),
    ]  # fmt: skip


@pytest.mark.parametrize(("expected", "cell", "word"), kinds())
def test_a_number_without_noise_is_moved_and_what_cannot_be_moved_is_left(
    expected: ExpectedCell, cell: Cell, word: str
) -> None:
    plan, seen = redrawn(expected, cell, 3.0)
    assert (plan is None) == (word == "nothing")
    if plan is None:
        return
    assert isnan(plan.power) == (word in ("moved", "reference"))
    if isnan(plan.power):
        plan.draw(nan)
        base = Fraction("50.5") if word == "reference" else 20
        assert [(drawn.value, drawn.k, drawn.seeds) for drawn in seen] == [(base + 3, None, ())]


def test_a_curve_has_no_value_to_redraw() -> None:
    made = Measurement("t/a", "loss", None, None, None, (), None, ())
    rule = tolerance("seeds", margin="1")
    expected = expected_cell(value="2", unit="loss", tolerance=rule)
    assert trajectory_cell("t/a").value is None
    assert experiment(expected, made, lambda _: Finding("match", ""), 0.0) is None
