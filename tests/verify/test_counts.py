"""Counts behind rounded percentages of a table from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.cli.main import run as kit
from kit.errors import InvalidInput, Many
from kit.results.types import Cell, Results, SeedValue
from kit.verify.tables import with_counts


def table(*cells: Cell) -> Results:
    return Results(schema_version=1, experiment="e", version="1-A", profile="mini", cells=[*cells])


def filled(cell: Cell) -> tuple[Cell, list[str]]:
    results, notes = with_counts(table(cell), "t.csv")
    return results.cells[0], notes


def test_one_decimal_of_208_items_is_one_count() -> None:
    cell, notes = filled(Cell(id="a", unit="percent", value=1.9, n=208))
    assert (cell.k, cell.value, notes) == (4, 100 * 4 / 208, [])
    cell, _ = filled(Cell(id="a", unit="fraction", value=0.019, n=208))
    assert (cell.k, cell.value) == (4, 4 / 208)


def test_several_counts_take_the_nearest_and_say_so() -> None:
    cell, notes = filled(Cell(id="mmlu", unit="percent", value=65.1, n=14042))
    assert cell.k == 9141
    assert notes == ["1 rounded values fit several counts; the nearest was taken: mmlu"]


@given(n=st.integers(1, 5000), share=st.floats(0, 1), digits=st.integers(0, 4))
def test_the_count_is_never_further_than_rounding(n: int, share: float, digits: int) -> None:
    k = round(share * n)
    said = round(100 * k / n, digits)
    cell, _ = filled(Cell(id="a", unit="percent", value=said, n=n))
    assert cell.k is not None
    assert abs(100 * cell.k / n - said) <= 0.5 * 10**-digits + 1e-9


@pytest.mark.parametrize("unit", ["percent", "fraction"])
@pytest.mark.parametrize("n", [7, 52, 208, 868, 14042])
def test_a_share_in_full_precision_is_its_count(unit: str, n: int) -> None:
    """What a program writes is off by the last binary digit, and no slip of the pen."""
    whole = 100.0 if unit == "percent" else 1.0
    for k in range(0, n + 1, max(1, n // 200)):
        for value in (whole * k / n, k / n * whole, float(f"{whole * k / n:.15g}")):
            assert filled(Cell(id="a", unit=unit, value=value, n=n))[0].k == k


def test_what_needs_no_count_is_left_alone() -> None:
    for cell in (
        Cell(id="a", unit="loss", value=1.9, n=208),
        Cell(id="a", unit="percent", value=1.9),
        Cell(id="a", unit="percent", k=4, n=208),
        Cell(id="a", unit="percent", value=float("nan"), n=208),
        Cell(id="a", unit="percent", not_run="no"),
    ):
        assert repr(filled(cell)[0]) == repr(cell)


def test_seeds_get_theirs_and_the_mean_follows() -> None:
    seeds = [SeedValue(seed=str(i), value=v, n=208) for i, v in enumerate((1.9, 2.4))]
    cell, _ = filled(Cell(id="a", unit="percent", value=2.15, seeds=seeds))
    assert [seed.k for seed in cell.seeds] == [4, 5]
    assert cell.value == pytest.approx(100 * 4.5 / 208)


def test_an_impossible_percentage_is_named() -> None:
    with pytest.raises(InvalidInput, match="no count of 208 items gives") as caught:
        filled(Cell(id="a", unit="percent", value=1.7, n=208))
    assert caught.value.where == "t.csv: cell a"
    assert caught.value.why == "nearest are 3/208 = 1.442, 4/208 = 1.923"
    with pytest.raises(InvalidInput, match="is no fraction"):
        filled(Cell(id="a", unit="fraction", value=1.9, n=208))
    with pytest.raises(Many):
        with_counts(table(*(Cell(id=i, unit="percent", value=1.7, n=208) for i in "ab")), "t")


def test_a_rounded_table_is_verified(
    repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text("cell,value,n\nt1/none,52.9,208\nt1/defended,4.3,208\n")
    assert kit(["verify", "made", "--results", str(path), "--explain"]) == 3
    assert "cell t1/none reproduced: published=50.0 value=52.88" in capsys.readouterr().out
    path.write_text("cell,value,n\nt1/none,52.8,208\n")
    assert kit(["verify", "made", "--results", str(path)]) == 4
    assert f"{path}: cell t1/none" in capsys.readouterr().err
