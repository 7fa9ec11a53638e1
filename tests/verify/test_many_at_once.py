"""Many tests at once: adjusted p-values, the omnibus line, and what replicates say of chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import copysign, sqrt
from typing import Any

import numpy as np
import pytest
from scipy import stats

from kit.manifest.expectation_types import Reference
from kit.results.types import Cell
from kit.verify import multiple
from kit.verify.measurement import Measurement, measure
from kit.verify.multiple import (
    at_least,
    benjamini_hochberg,
    chance_limit,
    drawn_limit,
    holm,
    normal_score,
    omnibus,
    shift_p,
    sides_of,
    with_q,
)
from kit.verify.verdict import CellReport
from tests.verify.builders import reference, seeded

RECORD = "expected_results/reference/made.mini.jsonl"


def measured(values: Sequence[float], first: int = 0) -> Measurement:
    return measure(seeded("t/a", values, "loss", first), "loss", "a test", None)


def known(values: Sequence[str], ids: Sequence[str] = ()) -> Reference:
    return Reference(mean="0", sd="1", n_seeds=3, values=list(values), seeds=list(ids),
                     record=RECORD)  # fmt: skip


@pytest.mark.parametrize(
    ("here", "there", "sides"),
    [
        ([1.0, 3.0], known(["0.5", "1"], ["0", "1"]), {"paired": {"0": 0.5, "1": 2.0}}),
        ([1.0, 3.0], known(["0.5", "1", "9"], ["0", "1", "2"]),
         {"paired": {"0": 0.5, "1": 2.0}}),
        ([1.0, 3.0], known(["0.5", "1"], ["0", "7"]),
         {"run": {"0": 1.0, "1": 3.0}, "reference": {"0": 0.5, "7": 1.0}}),
        ([1.0, 3.0], known(["0.5", "1"]),
         {"run": {"0": 1.0, "1": 3.0}, "reference": {"#0": 0.5, "#1": 1.0}}),
        ([1.0, 3.0], known(["0.5"]), {"run": {"0": 1.0, "1": 3.0}}),
        ([1.0, 3.0], known([], ["0", "1"]), {"run": {"0": 1.0, "1": 3.0}}),
        ([1.0, 3.0], None, {"run": {"0": 1.0, "1": 3.0}}),
    ],
)  # fmt: skip
def test_sides(here: list[float], there: Reference | None, sides: dict[str, Any]) -> None:
    assert sides_of(measured(here), there) == sides


def test_a_cell_measured_once_has_no_side_of_its_own() -> None:
    once = measure(Cell(id="t/a", unit="loss", value=1.0), "loss", "a test", None)
    assert sides_of(once, None) == {}
    assert sides_of(once, reference(["1", "2"])) == {"reference": {"#0": 1.0, "#1": 2.0}}


def paired(rows: Sequence[Sequence[float]]) -> list[dict[str, dict[str, float]]]:
    return [{"paired": {str(i): v for i, v in enumerate(row)}} for row in rows]


def two_sided(
    here: Sequence[Sequence[float]], there: Sequence[Sequence[float]]
) -> list[dict[str, dict[str, float]]]:
    return [
        {"run": {str(i): v for i, v in enumerate(a)},
         "reference": {f"#{i}": v for i, v in enumerate(b)}}
        for a, b in zip(here, there, strict=True)
    ]  # fmt: skip


ROWS = np.array([[1.0, 2.0, 4.0], [0.3, -0.2, 0.5], [7.0, 7.5, 6.0]])
OTHER = np.array([[0.0, 1.0, -1.0, 2.0], [0.1, 0.2, 0.0, -0.3], [5.0, 5.5, 6.5, 4.0]])


def lengths(*parts: np.ndarray) -> np.ndarray:
    """Root of the sum of squared deviations from the mean of each side, of every row."""
    squares = sum(((part - part.mean(axis=1, keepdims=True)) ** 2).sum(axis=1) for part in parts)
    return np.sqrt(np.asarray(squares))[:, None]


def test_a_common_shift_of_paired_replicates_is_a_t_test_of_their_means() -> None:
    means = (ROWS / lengths(ROWS)).mean(axis=0)
    expected = pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    assert shift_p(paired(ROWS.tolist())) == expected
    assert shift_p(paired((-ROWS).tolist())) == expected


def test_a_common_shift_against_other_replicates_is_welchs_test_of_their_means() -> None:
    long = lengths(ROWS, OTHER)
    theirs = stats.ttest_ind((ROWS / long).mean(axis=0), (OTHER / long).mean(axis=0),
                             equal_var=False)  # fmt: skip
    ours = shift_p(two_sided(ROWS.tolist(), OTHER.tolist()))
    assert ours == pytest.approx(theirs.pvalue)
    assert 0.001 < ours < 0.9


def test_the_order_of_replicates_and_cells_that_do_not_spread_change_nothing() -> None:
    cells = paired(ROWS.tolist())
    turned = [{side: dict(reversed(of.items())) for side, of in cell.items()} for cell in cells[:1]]
    still: dict[str, dict[str, float]] = {"paired": {"0": 3.0, "1": 3.0, "9": 3.0}}
    assert shift_p([*turned, *cells[1:], still, {}]) == pytest.approx(shift_p(cells))


@pytest.mark.parametrize(
    "cells",
    [
        [],
        [{}],
        paired([[1.0, 1.0]]),
        [*paired([[1.0, 2.0]]), {"paired": {"0": 1.0, "7": 3.0}}],
        [{"run": {"0": 1.0, "1": 2.0}}],
        paired([[-1.0, 1.0], [2.0, -2.0]]),
    ],
)
def test_where_no_common_shift_can_be_seen(cells: list[Mapping[str, Mapping[str, float]]]) -> None:
    assert shift_p(cells) == 1.0


def limit_by_simulation(cells: np.ndarray, freedom: int, level: float) -> int:
    """Of cells with replicates on a single side, from their correlations pair by pair."""
    count = len(cells)
    whole = np.corrcoef(cells)
    pairs = [whole[i, j] ** 2 for i in range(count) for j in range(count) if i != j]
    observed, chance = float(np.mean(pairs)), 1 / freedom
    real = observed if freedom == 1 else max(0.0, (observed - chance) / (1 - chance))
    shrunk = sqrt(real / observed) * whole
    np.fill_diagonal(shrunk, 1.0)
    scores = np.random.default_rng(5).multivariate_normal(np.zeros(count), shrunk, 40_000)
    beyond = (np.abs(scores) > stats.norm.ppf(0.975)).sum(axis=1)
    return int(np.quantile(beyond, level, method="higher"))


@pytest.mark.parametrize("together", [0.0, 0.4, 0.7, 0.9])
@pytest.mark.parametrize(("seeds", "count"), [(3, 24), (4, 16), (8, 24)])
@pytest.mark.parametrize("level", [0.9, 0.99])
def test_the_drawn_limit_is_that_of_scores_with_shrunken_correlations(
    together: float, seeds: int, count: int, level: float
) -> None:
    random = np.random.default_rng(seeds)
    common, own = random.standard_normal(seeds), random.standard_normal((count, seeds))
    cells = sqrt(together) * common + sqrt(1 - together) * own
    ours = drawn_limit(paired(cells.tolist()), 0.05, level)
    assert abs(ours - limit_by_simulation(cells, seeds - 1, level)) <= 1
    assert ours == drawn_limit(paired((0.01 * cells).tolist()), 0.05, level)


def test_cells_that_move_as_a_single_one_differ_all_or_none() -> None:
    row = [0.1, 0.7, -0.4, 1.3, 2.2]
    cells = paired([[scale * v for v in row] for scale in (1.0, 3.0, -7.0, 0.11, 2.3, 9.1, 0.7)])
    assert drawn_limit(cells, 0.05, 0.99) == 7
    assert drawn_limit(cells, 0.05, 0.90) == 0
    assert drawn_limit(cells, 0.50, 0.90) == 7


@pytest.mark.parametrize("cells", [[], [{}], [{}, {}, {}]])
def test_without_replicates_no_limit_can_be_drawn(cells: list[dict[str, Any]]) -> None:
    assert drawn_limit(cells, 0.05, 0.99) == 0


def test_cells_that_do_not_spread_vary_on_their_own() -> None:
    """Two replicates each: nothing is known of how forty of them hang together."""
    for still in (*paired([[1.0, 1.0]]), {}):
        cells = [*[still] * 40, *paired([[1.0, 2.0]])]
        assert abs(drawn_limit(cells, 0.05, 0.99) - chance_limit(41)) <= 1


def test_adjusted_p_values_are_no_larger_than_1() -> None:
    assert holm([0.6, 0.7, 0.9]) == [1.0, 1.0, 1.0]
    assert holm([]) == []
    assert benjamini_hochberg([1.0, 1.0]) == [1.0, 1.0]
    assert benjamini_hochberg([]) == []
    assert at_least([0.6, 0.7], 1) == 1.0


@pytest.mark.parametrize("r", [1, 2, 3, 4])
def test_at_least_some_of_them(r: int) -> None:
    """From ``P(all n - r + 1 largest are as small)`` by Bonferroni over that many."""
    p = [0.04, 0.001, 0.2, 0.03]
    assert at_least(p, r) == pytest.approx(min(1.0, (5 - r) * sorted(p)[r - 1]))


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99, 1.0])
@pytest.mark.parametrize("tested", [0, 1, 2, 3, 40])
def test_how_many_differ_by_chance(tested: int, level: float) -> None:
    said = chance_limit(tested, level)
    if level == 1.0:
        assert stats.binom.cdf(said, tested, 0.05) == 1.0
        assert said <= tested
    else:
        assert said == stats.binom.ppf(level, tested, 0.05)


@pytest.mark.parametrize("p", [0.9, 0.05, 1e-9])
@pytest.mark.parametrize("sign", [3.0, 1.0, 0.5, 1e-9])
def test_scores_are_those_of_the_normal_with_the_sign(p: float, sign: float) -> None:
    assert normal_score(p, sign) == pytest.approx(stats.norm.isf(p / 2))
    assert normal_score(p, -sign) == pytest.approx(-stats.norm.isf(p / 2))


@pytest.mark.parametrize(("p", "sign"), [(1.0, 1.0), (1.0, -1.0), (0.05, 0.0), (1.5, 1.0)])
def test_no_score_without_size_and_no_signed_zero(p: float, sign: float) -> None:
    assert normal_score(p, sign) == 0.0
    assert copysign(1.0, normal_score(p, sign)) == 1.0


def test_the_score_of_p_0_is_finite() -> None:
    assert 36 < normal_score(0.0, 1.0) < 39


def report(id: str, p: float | None, **fields: Any) -> CellReport:
    defaults = {"verdict": "reproduced", "detail": "", "status": "reported", "place": "doc"}
    more: dict[str, Any] = defaults | {"table": id.split("/")[0]} | fields
    return CellReport(id=id, unit="loss", p=p, **more)


def test_only_what_has_a_p_gets_a_q_and_keeps_its_order() -> None:
    made = with_q([report("t/a", 0.04), report("t/b", None), report("t/c", 0.01)])
    assert [cell.id for cell in made] == ["t/a", "t/b", "t/c"]
    assert made[1].q is None
    assert [made[0].q, made[2].q] == pytest.approx([0.04, 0.02])


def cells(differ: int, of: int, prefix: str = "t/") -> list[CellReport]:
    return [report(f"{prefix}c{i}", 0.001 if i < differ else 0.5) for i in range(of)]


def test_cells_without_a_test_or_without_meaning_are_not_counted() -> None:
    made = [report("t/a", 0.01), report("t/b", None), report("t/c", 0.01, verdict="invalid"),
            report("t/d", 0.01, verdict="missing"), report("t/e", 0.05),
            report("t/f", 0.0499)]  # fmt: skip
    (line,) = omnibus(made)
    assert (line.table, line.tested, line.differing) == ("t", 3, 2)
    assert omnibus([report("t/a", None)]) == []


@pytest.mark.parametrize(("prefix", "metric"), [("t/m/", "t/m"), ("t/m/n/", "t/m/n"), ("t/", "")])
@pytest.mark.parametrize("count", [9, 10])
def test_a_metric_of_ten_cells_has_a_line_of_its_own(prefix: str, metric: str, count: int) -> None:
    names = [line.table for line in omnibus(cells(count, count, prefix))]
    assert names == (["t", metric] if metric and count == 10 else ["t"])


def test_cells_without_a_table_or_a_metric_have_no_second_line() -> None:
    made = [report(f"c{i}", 0.001, table="t") for i in range(12)]
    assert [line.table for line in omnibus(made)] == ["t"]


def test_a_metric_within_chance_has_no_line_of_its_own() -> None:
    limit = chance_limit(40)
    assert [line.table for line in omnibus(cells(limit, 40, "t/m/"))] == ["t"]
    assert [line.table for line in omnibus(cells(limit + 1, 40, "t/m/"))] == ["t", "t/m"]


def shifted(id: str) -> Mapping[str, Mapping[str, float]]:
    return {"paired": {"0": 9.0 + 0.1 * len(id), "1": 9.2, "2": 9.1, "3": 9.15}}


@pytest.mark.parametrize("extra", [-2, -1, 0, 1, 2, 3])
def test_what_is_drawn_counts_where_it_is_more_than_chance(
    monkeypatch: pytest.MonkeyPatch, extra: int
) -> None:
    """Differing are two more than chance explains."""
    chance = chance_limit(40)
    monkeypatch.setattr(multiple, "drawn_limit", lambda sides, alpha, level: chance + extra)
    line = omnibus(cells(chance + 2, 40))[0]
    assert line.differing == chance + 2
    assert line.chance == chance + max(0, extra)
    assert line.exceeds == (extra < 2)
    assert ("hang together" in line.sentence) == (extra > 0)


def test_within_chance_no_replicate_is_asked() -> None:
    def asked(id: str) -> Mapping[str, Mapping[str, float]]:
        raise AssertionError(id)

    limit = chance_limit(40)
    (line,) = omnibus(cells(limit, 40), asked)
    assert (line.exceeds, line.chance) == (False, limit)
    assert line.sentence == f"{limit} of 40 differ, up to {limit} expected by chance (99 %)"


def test_a_common_shift_is_said_and_its_limit_stays_that_of_chance() -> None:
    line = omnibus(cells(20, 40), shifted)[0]
    assert line.exceeds
    assert line.chance == chance_limit(40)
    assert "all together they are shifted, p " in line.sentence


@pytest.mark.parametrize(
    ("z", "mean", "said"),
    [
        ([1.0, 2.0], 1.5, "; mean z +1.50"),
        ([1.0, None, 0.5, -3.0], -0.5, "; mean z -0.50"),
        ([2.0], 2.0, None),
        ([None, None], None, None),
    ],
)
def test_the_mean_score_is_over_those_that_have_one_and_said_of_several(
    z: list[float | None], mean: float | None, said: str | None
) -> None:
    (line,) = omnibus([report(f"t/{i}", 0.5, z=score) for i, score in enumerate(z)])
    assert line.mean_z == (None if mean is None else pytest.approx(mean))
    assert line.sentence.endswith(said or "(99 %)")


Named = Callable[[Sequence[float]], list[float]]


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_equal_p_values_are_adjusted_alike(adjust: Named) -> None:
    assert len(set(adjust([0.02] * 4))) == 1


def test_paired_differences_are_exact_before_they_are_floats() -> None:
    assert sides_of(measured([0.3, 0.7]), known(["0.1", "0.2"], ["0", "1"])) == {
        "paired": {"0": float(Fraction("0.2")), "1": float(Fraction("0.5"))}
    }
