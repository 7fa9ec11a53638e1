"""Tables and expectations that do not belong together are refused, and all that is wrong said."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from msgspec import structs

from kit.errors import InvalidInput, KitError, Many
from kit.manifest.expectation_types import Derived
from kit.results.types import Cell, SeedValue
from kit.verify.measurement import measure
from kit.verify.pairs import ItemsDiffer, discordance
from kit.verify.preconditions import check_pair
from kit.verify.selftest import _step
from kit.verify.simulate import _bound_power
from tests.verify.builders import (
    claim,
    expectation,
    expected_cell,
    labels,
    one,
    share,
    table,
    tolerance,
)


def faults(
    cells: list[Any], measured: list[Cell], claims: Any = (), *, strict: bool = False, **fields: Any
) -> list[str]:
    expected, results = expectation(cells, claims), table(measured, **fields)
    try:
        check_pair(expected, results, "results.json", "made.yaml", strict=strict)
    except Many as many:
        return [error.what for error in many.errors]
    except KitError as error:
        return [error.what]
    return []


A, B = share("t/a", 1, 10), share("t/b", 1, 10)


def test_a_table_of_the_expectation_is_taken() -> None:
    assert faults([expected_cell("t/a")], [A], [claim("threshold", cells=["t/a"])]) == []
    assert faults([expected_cell("t/a")], [A], version="1-B") == []
    expected, more = expectation([expected_cell("t/a")]), table([A, B, share("stats/t/x", 1, 2)])
    assert check_pair(expected, more, "r", "e") == ["t/b"]
    assert faults([expected_cell("t/a")], [A, B]) == []
    assert faults([expected_cell("t/a")], [A, B], strict=True) == ["unknown cell 't/b'"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"experiment": "x"}, "field 'experiment': 'x', but the expectation is for 'made'"),
        ({"profile": "x"}, "field 'profile': 'x', but the expectation is for 'mini'"),
        ({"version": "2-A"}, "field 'version': '2-A' is not comparable"),
    ],
)
def test_another_experiment_profile_or_version(fields: dict[str, Any], said: str) -> None:
    (fault,) = faults([expected_cell("t/a")], [A], **fields)
    assert fault.startswith(said)


def test_nothing_stands_twice_and_claims_name_what_is_there() -> None:
    cell = expected_cell("t/a")
    low = claim("threshold", cells=["t/a"], value="1", side="at_most")
    assert faults([cell, cell], [A]) == ["cell 't/a' stands twice"]
    assert faults([cell], [A, A]) == ["cell 't/a' stands twice"]
    assert faults([cell], [A], [low, low]) == ["claim 'c1' stands twice"]
    other = structs.replace(low, cells=["t/b"])
    assert faults([cell], [A], [other]) == ["claim 'c1' names unknown cell 't/b'"]
    both = faults([cell, cell], [A], [other], profile="x")
    assert len(both) == 3


@pytest.mark.parametrize("wrong", [True, False])
def test_a_formula_has_its_cells(wrong: bool) -> None:
    cells = ["t/a", "t/b"] if wrong else ["t/a", "t/b", "t/a"]
    gap = expected_cell("t/g", derived=Derived(formula="gap_closed", cells=cells))
    made = faults([expected_cell("t/a"), expected_cell("t/b"), gap], [A, B])
    assert made == (["cell 't/g': gap_closed takes 3 cells, not 2"] if wrong else [])


def test_exact_equality_looks_at_counts() -> None:
    rule = tolerance("exact")
    known = expected_cell("t/a", "4.8", k=10, n=208, tolerance=rule)
    assert one(known, share("t/a", 10, 208)).verdict == "match"
    off = one(known, share("t/a", 11, 208))
    assert off.verdict == "deviates"
    assert off.difference == pytest.approx(100 * 11 / 208 - 4.8)
    assert "11 items against 10" in off.detail


@pytest.mark.parametrize(
    ("rule", "unit", "why"),
    [
        (tolerance("absolute", margin="-1"), "loss", "'tolerance.margin' is negative"),
        (tolerance("absolute"), "loss", "'tolerance.margin' is missing"),
        (tolerance("relative", margin="0.1", floor="-1"), "loss", "'tolerance.floor' is negative"),
        (tolerance("relative", margin="0.1", floor="0"), "percent", "refused for proportions"),
    ],
)
def test_tolerances_that_cannot_be_meant(rule: Any, unit: str, why: str) -> None:
    known = expected_cell("t/a", "4.8", unit=unit, tolerance=rule)
    with pytest.raises(InvalidInput) as raised:
        one(known, Cell(id="t/a", unit=unit, value=4.8))
    assert why in str(raised.value)


def test_a_bound_may_be_negative() -> None:
    known = expected_cell("t/a", None, unit="loss",
                          tolerance=tolerance("bound", bound="-1", side="at_least"))  # fmt: skip
    assert one(known, Cell(id="t/a", unit="loss", value=-1.0)).verdict == "reproduced"
    assert one(known, Cell(id="t/a", unit="loss", value=-1.5)).verdict == "deviates"


@pytest.mark.parametrize(
    ("k", "n", "why"),
    [
        (3, None, "field 'n' is missing beside k"),
        (-1, 5, "-1 of 5"),
        (6, 5, "6 of 5"),
        (0, 0, "0 of 0"),
    ],
)
def test_counts_that_are_no_proportion(k: int, n: int | None, why: str) -> None:
    cell = Cell(id="t/a", unit="percent", value=60.0, k=k, n=n)
    with pytest.raises(InvalidInput, match=why):
        measure(cell, "percent", "results.json", None)
    seed = SeedValue(seed="0", value=60.0, k=k, n=n)
    with pytest.raises(InvalidInput, match=why):
        measure(Cell(id="t/a", unit="percent", value=60.0, seeds=[seed]), "percent", "r", None)


def test_counts_at_both_ends_are_proportions() -> None:
    for k in (0, 5):
        made = measure(Cell(id="t/a", unit="percent", k=k, n=5), "percent", "r", None)
        assert made.value == Fraction(100 * k, 5)


def test_items_are_paired_by_name_and_else_by_place() -> None:
    here = labels("a", "1100", ["w", "x", "y", "z"])
    assert discordance(here, labels("b", "0011", ["z", "y", "x", "w"])) == (0, 0, 4)
    assert discordance(here, labels("b", "1010", ["w", "x", "y", "z"])) == (1, 1, 4)
    nameless = structs.replace(labels("b", "0000"), items=[])
    assert discordance(here, nameless) == (2, 0, 4)
    with pytest.raises(ItemsDiffer, match="4 labels against 3"):
        discordance(here, labels("b", "111"))
    with pytest.raises(ItemsDiffer, match="1 of 4 items differ, first 'w'"):
        discordance(here, labels("b", "1111", ["v", "x", "y", "z"]))


@pytest.mark.parametrize(
    ("rule", "value", "step"),
    [
        (tolerance("relative", margin="0.1", floor="0"), "50", 7.5),
        (tolerance("relative", margin="0.1", floor="9"), "50", 13.5),
        (tolerance("relative", margin="0.1", floor="0"), "-50", 7.5),
    ],
)
def test_a_planted_shift_is_half_as_large_again_as_a_relative_margin(
    rule: Any, value: str, step: float
) -> None:
    known = expected_cell("t/a", value, unit="loss", tolerance=rule)
    cell = measure(Cell(id="t/a", unit="loss", value=1.0), "loss", "r", None)
    assert _step(known, cell) == pytest.approx(step)


def test_the_power_of_a_bound_is_that_of_statsmodels() -> None:
    from statsmodels.stats.power import NormalIndPower
    from statsmodels.stats.proportion import proportion_effectsize

    for p0, p1, n in ((0.1, 0.2, 208), (0.05, 0.02, 100), (0.5, 0.52, 400)):
        h = abs(proportion_effectsize(p1, p0))
        theirs = NormalIndPower(ddof=0).solve_power(h, nobs1=n, ratio=0, alpha=0.05,
                                                    alternative="larger")  # fmt: skip
        assert _bound_power(p0, p1, n) == pytest.approx(theirs, abs=1e-6)
