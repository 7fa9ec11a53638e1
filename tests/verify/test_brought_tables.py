"""Tables of others, cell by cell: what is read, what is filled in and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit.errors import InvalidInput
from kit.results.labels import LabelTable
from kit.results.types import Cell, SeedValue
from kit.verify.tables import read_table, template, with_counts
from tests.verify.builders import expectation, expected_cell, table, tolerance

EXPECTED = expectation(
    [
        expected_cell("t/a", n=208),
        expected_cell("t/f", "0.5", unit="fraction"),
        expected_cell("t/l", "2", unit="loss", tolerance=None),
        expected_cell("t/c", None, tolerance=tolerance("trajectory", margin="1")),
    ],
    version="3-B",
)


def filled(cell: Cell) -> tuple[Cell, list[str]]:
    results, notes = with_counts(table([cell]), "t.csv")
    return results.cells[0], notes


@pytest.mark.parametrize(
    ("unit", "value", "n", "k"),
    [
        ("percent", 100.0, 1, 1),
        ("percent", 0.0, 1, 0),
        ("fraction", 1.0, 3, 3),
        ("percent", 50.0, 0, None),
        ("percent", 50.0, None, None),
        ("loss", 50.0, 100, None),
        ("ratio", 0.5, 100, None),
        ("percent", 33.0, 3, 1),
        ("fraction", 0.7, 3, 2),
        ("percent", None, 3, None),
    ],
)
def test_a_share_of_items_has_a_count(
    unit: str, value: float | None, n: int | None, k: int | None
) -> None:
    cell, notes = filled(Cell(id="a", unit=unit, value=value, n=n))
    assert (cell.k, notes) == (k, [])
    whole = 100 if unit == "percent" else 1
    assert cell.value == (value if k is None or n is None else whole * k / n)


def test_a_count_that_is_there_is_not_looked_at() -> None:
    cell = Cell(id="a", unit="percent", value=12.0, k=4, n=208)
    assert filled(cell) == (cell, [])


@pytest.mark.parametrize(
    ("value", "wrong"), [(-0.1, True), (0.0, False), (100.0, False), (100.1, True)]
)
def test_a_share_lies_on_its_scale(value: float, wrong: bool) -> None:
    cell = Cell(id="a", unit="percent", value=value, n=1000)
    if wrong:
        with pytest.raises(InvalidInput, match="is no percent"):
            filled(cell)
    else:
        assert filled(cell)[0].k == 10 * value


@pytest.mark.parametrize(
    ("value", "n", "k", "vague"),
    [
        (65.0, 10_000, 6500, False),
        (65.1, 10_000, 6510, False),
        (65.1, 14_042, 9141, True),
        (33.3, 1600, 533, True),
        (1.9, 208, 4, False),
    ],
)
def test_a_note_only_where_the_nearest_count_is_not_the_number_itself(
    value: float, n: int, k: int, vague: bool
) -> None:
    """Several counts may round to a number, and one of them be it."""
    cell, notes = filled(Cell(id="a", unit="percent", value=value, n=n))
    assert cell.k == k
    assert bool(notes) == vague


def test_notes_name_each_cell_once() -> None:
    seeds = [SeedValue(seed=str(i), value=65.1, n=14042) for i in range(3)]
    cells = [Cell(id="a", unit="percent", value=65.1, seeds=seeds)]
    cells += [Cell(id=f"b{i}", unit="percent", value=65.1, n=14042) for i in range(6)]
    results, notes = with_counts(table(cells), "t.csv")
    assert notes == ["7 rounded values fit several counts; the nearest was taken: "
                     "a, b0, b1, b2, b3 and 2 more"]  # fmt: skip
    first = results.cells[0]
    assert first.value == pytest.approx(sum(seed.value for seed in first.seeds) / 3)
    assert [seed.k for seed in first.seeds] == [9141] * 3


def test_seeds_without_items_keep_their_mean() -> None:
    seeds = [SeedValue(seed=str(i), value=float(i), n=None) for i in range(1, 4)]
    cell, _ = filled(Cell(id="a", unit="percent", value=None, seeds=seeds))
    assert (cell.value, [seed.value for seed in cell.seeds]) == (2.0, [1.0, 2.0, 3.0])


def read(tmp_path: Path, text: str) -> tuple[list[Cell], LabelTable]:
    (tmp_path / "t.csv").write_text(text)
    results, labels = read_table(tmp_path / "t.csv", EXPECTED)
    assert (results.experiment, results.version, results.profile) == ("made", "3-B", "mini")
    assert isinstance(labels, LabelTable)
    return results.cells, labels


def row(**fields: Any) -> Cell:
    return Cell(**{"id": "t/a", "unit": "percent"} | fields)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("cell,value\nt/a,4.5\n", row(value=4.5)),
        ("cell,value,unit\nt/a,4.5,\n", row(value=4.5)),
        ("cell,value,unit\nt/a,4.5,fraction\n", row(value=4.5, unit="fraction")),
        ("cell,value\nt/f,0.5\n", row(id="t/f", value=0.5, unit="fraction")),
        ("cell,value\nt/new,3\n", row(id="t/new", value=3.0, unit="number")),
        ("cell,value\n t/a , 4.5 \n", row(value=4.5)),
        ("cell,k,n\nt/a,3,12\n", row(k=3, n=12)),
        ("cell,value,n\nt/a,25,12\n", row(value=25.0, n=12)),
        ("cell,k\nt/a,3\n", row(k=3)),
        ("cell,value,not_run\nt/a,4.5,no time\n", row(not_run="no time")),
        ("cell,value,seed\nt/a,4.5,7\n", row(seeds=[SeedValue(seed="7", value=4.5)])),
        ("cell,k,n,seed\nt/a,3,12,7\n", row(seeds=[SeedValue(seed="7", value=25.0, k=3, n=12)])),
        ("cell,k,n,seed\nt/f,3,12,7\n",
         row(id="t/f", unit="fraction", seeds=[SeedValue(seed="7", value=0.25, k=3, n=12)])),
        ("cell,value,seed\nt/a,1,x\nt/a,2,y\n",
         row(seeds=[SeedValue(seed="x", value=1.0), SeedValue(seed="y", value=2.0)])),
    ],
)  # fmt: skip
def test_a_row_is_a_cell(tmp_path: Path, text: str, cell: Cell) -> None:
    assert read(tmp_path, text)[0] == [cell]


def test_rows_that_were_left_empty_are_no_cells(tmp_path: Path) -> None:
    cells, _ = read(tmp_path, "cell,value,n\nt/a,,208\nt/f,0.5,\n")
    assert [cell.id for cell in cells] == ["t/f"]
    assert read(tmp_path, "\ufeffcell,value\nt/a,1\n")[0] == [row(value=1.0)]


def test_labels_belong_to_their_cell_and_seed(tmp_path: Path) -> None:
    cells, labels = read(
        tmp_path,
        "cell,value,k,n,seed,labels\nt/a,,1,3,x,100\nt/a,,2,3,y,011\nt/f,,1,2,,01\n",
    )
    assert [seed.labels for seed in cells[0].seeds] == ["t/a@x", "t/a@y"]
    assert cells[1].labels == "t/f"
    found = {name: labels.get(name).labels for name in ("t/a@x", "t/a@y", "t/f")}
    assert found == {"t/a@x": [1, 0, 0], "t/a@y": [0, 1, 1], "t/f": [0, 1]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cell,k,n,seed\nt/a,3,0,7\n", "t.csv:2: neither 'value' nor 'k' and 'n' of cell 't/a'"),
        ("cell,n,seed\nt/a,3,7\n", "t.csv:2: neither 'value'"),
        ("cell,k,seed\nt/a,3,7\n", "t.csv:2: neither 'value'"),
        ("cell,value,seed\nt/a,1,7\nt/a,2,\n", "t.csv:3: field 'seed' is empty, and cell 't/a'"),
        ("cell,value\nt/a,1\nt/f,x\n", "t.csv:3: field 'value': 'x'"),
        ("cell,cell\nt/a,1\n", "t.csv:1: column 'cell' stands twice"),
        ("value,rate\n1,2\n", "t.csv:1: unknown column 'rate'"),
        ("value\n1\n", "t.csv:1: no column 'cell'"),
        ("cell,value\nt/a,1,2\n", "t.csv:2: another number of fields"),
        ("cell,value\nt/a\n", "t.csv:2: another number of fields"),
        ("cell,value\n\nt/a,1\n,2\n", "t.csv:4: field 'cell' is empty"),
        ("cell,labels,value\nt/a,012,1\n", "t.csv:2: field 'labels' holds something other"),
    ],
)
def test_a_slip_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path, text)
    assert says in str(caught.value)


def test_a_list_of_cells_is_a_table_of_the_expectation(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    cells = [{"id": "t/a", "unit": "percent", "value": 4.5}]
    path.write_text(f"\n {json.dumps(cells)}")
    results, _ = read_table(path, EXPECTED)
    assert results == table([row(value=4.5)], version="3-B")
    whole = {"schema_version": 1, "experiment": "x", "version": "9", "profile": "p", "cells": cells}
    path.write_text(json.dumps(whole))
    assert read_table(path, EXPECTED)[0].experiment == "x"
    path.write_text("[1")
    with pytest.raises(InvalidInput) as caught:
        read_table(path, EXPECTED)
    assert caught.value.where == str(path)
    assert "a table is CSV" in str(caught.value.next_step)


def test_the_empty_table_has_the_cells_that_one_number_can_fill() -> None:
    lines = template(EXPECTED).splitlines()
    assert lines[0] == "cell,value,unit,k,n,seed,labels,not_run"
    assert lines[1:] == ["t/a,,percent,,208,,,", "t/f,,fraction,,,,,"]
