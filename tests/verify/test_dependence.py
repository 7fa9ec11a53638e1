"""The omnibus line among cells that hang together through their replicates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kit.manifest.expectation_types import ExpectedCell
from kit.verify.core import Subject, verify
from kit.verify.multiple import Sides, chance_limit, drawn_limit, shift_p
from kit.verify.verdict import Omnibus
from tests.verify.builders import expectation, expected_cell, reference, seeded, table, tolerance

SEEDS = 5
CELLS = 24


def sides(run: object, known: object) -> Sides:
    return {
        side: {str(i): float(x) for i, x in enumerate(np.asarray(values))}
        for side, values in (("run", run), ("reference", known))
    }


def line(run: np.ndarray, known: np.ndarray) -> Omnibus:
    """The omnibus line of a table of cells with these values, a row a cell."""
    cells: list[ExpectedCell] = []
    measured = []
    for i, (here, there) in enumerate(zip(run, known, strict=True)):
        values = [f"{x:.6f}" for x in there]
        rule = tolerance("seeds", margin="50")
        cells.append(expected_cell(f"t/c{i}", None, unit="loss", status="reference",
                                   reference=reference(values), tolerance=rule))  # fmt: skip
        measured.append(seeded(f"t/c{i}", [float(x) for x in here], unit="loss"))
    verdict = verify(Subject(expected=expectation(cells), results=table(measured)))
    return next(one for one in verdict.omnibus if one.table == "t")


def drawn(random: np.random.Generator, together: float) -> np.ndarray:
    """Values of cells by seeds: a share of the variance is common to all cells of a seed."""
    factor = random.standard_normal(SEEDS)
    own = random.standard_normal((CELLS, SEEDS))
    return np.sqrt(together) * factor + np.sqrt(1 - together) * own


def test_far_fewer_true_replications_are_stopped_where_cells_hang_together() -> None:
    """Of 400, the binomial limit alone stops 36 and the line 10 (150 of them here)."""
    random = np.random.default_rng(0)
    lines = [line(drawn(random, 0.8), drawn(random, 0.8)) for _ in range(150)]
    independent = sum(one.differing > chance_limit(CELLS) for one in lines)
    assert independent > 0.05 * len(lines)
    assert sum(one.exceeds for one in lines) <= min(0.05 * len(lines), independent / 2)
    assert any("hang together" in one.sentence for one in lines)


@pytest.mark.parametrize("together", [0.0, 0.8])
def test_a_shift_of_everything_is_seen_however_far_cells_hang_together(together: float) -> None:
    random = np.random.default_rng(1)
    lines = [line(drawn(random, together) + 4.0, drawn(random, together)) for _ in range(30)]
    assert sum(one.exceeds for one in lines) >= 28
    assert any("all together they are shifted, p" in one.sentence for one in lines)


def test_the_limit_of_independent_cells_is_the_binomial_one_and_that_of_copies_is_all() -> None:
    random = np.random.default_rng(2)
    many = [sides(random.standard_normal(20), random.standard_normal(20)) for _ in range(60)]
    assert abs(drawn_limit(many, 0.05, 0.99) - chance_limit(60)) <= 2
    assert drawn_limit([many[0]] * 60, 0.05, 0.99) == 60
    assert drawn_limit([{}] * 60, 0.05, 0.99) == 0
    alone = drawn_limit([*many[:1], *[{}] * 59], 0.05, 0.99)
    assert abs(alone - chance_limit(60)) <= 1


def test_the_shift_is_that_of_the_t_tests_over_means_of_replicates() -> None:
    """Welch's on two sides, the one of differences where sides are paired."""
    random = np.random.default_rng(3)
    run, known = random.normal(0.5, 2, (8, 5)), random.normal(0, 2, (8, 6))
    cells = [sides(x, y) for x, y in zip(run, known, strict=True)]
    scale = [np.sqrt(((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum())
             for x, y in zip(run, known, strict=True)]  # fmt: skip
    ours, theirs = ((v.T / scale).mean(axis=1) for v in (run, known))
    want = stats.ttest_ind(ours, theirs, equal_var=False).pvalue
    assert shift_p(cells) == pytest.approx(float(want), rel=1e-9)
    gaps = random.normal(0.5, 1, (8, 5))
    paired: list[Sides] = [{"paired": {str(i): float(x) for i, x in enumerate(of)}} for of in gaps]
    length = np.sqrt(((gaps.T - gaps.mean(axis=1)) ** 2).sum(axis=0))
    means = (gaps.T / length).mean(axis=1)
    assert shift_p(paired) == pytest.approx(float(stats.ttest_1samp(means, 0).pvalue), rel=1e-9)


def test_cells_of_other_replicates_have_no_common_shift() -> None:
    one = sides([1, 2, 3], [4, 5, 7])
    other = {side: {f"x{key}": value for key, value in of.items()} for side, of in one.items()}
    assert shift_p([one, other]) == 1.0
    assert shift_p([{"run": {"0": 1.0, "1": 2.0}}]) == 1.0
    assert shift_p([sides([1, 1], [2, 2])]) == 1.0
    assert shift_p([one, one]) < 0.05
