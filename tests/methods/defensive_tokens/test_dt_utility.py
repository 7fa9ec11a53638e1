"""Utility that a user brings: a percentage of a row that is there, and nothing else."""

from __future__ import annotations

import pytest

from kit.methods.defensive_tokens.utility import add_utility
from kit.results.builder import TableBuilder


def cells(**given: float) -> dict[str, float | None]:
    table = TableBuilder()
    values = {f"g/{name}": value for name, value in given.items()}
    add_utility(table, ["g"], ["native", "adapt"], values, "no judge")
    return {cell.id: cell.value for cell in table.build().cells}


@pytest.mark.parametrize("value", [0.0, 27.5, 100.0])
def test_a_percentage_is_kept(value: float) -> None:
    assert cells(native=value) == {"g/winrate/native": value, "g/winrate/adapt": None}


@pytest.mark.parametrize("value", [-0.01, 100.01, float("nan")])
def test_what_is_no_percentage_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="no percentage"):
        cells(native=value)


def test_a_row_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="rows here: g/native, g/adapt"):
        cells(other=1.0)
