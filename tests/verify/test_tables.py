"""Tables from elsewhere, and the template they start from."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from kit.errors import InvalidInput
from kit.verify.core import Subject, verify
from kit.verify.tables import read_table, template
from tests.verify.builders import expectation, expected_cell, labels, memory, tolerance

CELLS = [
    expected_cell("t/a", n=208),
    expected_cell("t/b", "50", n=208, labels="pub", tolerance=tolerance("paired", margin="5")),
    expected_cell("t/c", None, status="diverged", tolerance=None),
]
HEAD = "cell,value,unit,k,n,seed,labels,not_run\n"


def read(tmp_path: Path, text: str, name: str = "t.csv") -> list[str]:
    path = tmp_path / name
    path.write_text(text)
    expected = expectation(CELLS)
    results, source = read_table(path, expected)
    published = memory(labels("pub", "1" * 104 + "0" * 104))
    found = verify(Subject(expected=expected, results=results, labels=source, published=published))
    return [cell.verdict for cell in found.cells]


def test_counts_and_labels(tmp_path: Path) -> None:
    bits = "1" * 104 + "0" * 104
    text = f"{HEAD}t/a,,percent,10,208,,,\nt/b,,percent,104,208,,{bits},\n"
    assert read(tmp_path, text) == ["match", "match", "not-compared"]


def test_empty_rows_are_missing_and_reasons_are_kept(tmp_path: Path) -> None:
    text = f"{HEAD}t/a,,percent,,208,,,\nt/b,,,,,,,no GPU\n"
    assert read(tmp_path, text) == ["missing", "not-run", "not-compared"]


def test_a_template_filled_in_is_a_table(tmp_path: Path) -> None:
    blank = template(expectation(CELLS))
    rows = list(csv.DictReader(blank.splitlines()))
    assert [(row["cell"], row["n"]) for row in rows] == [("t/a", "208"), ("t/b", "208")]
    assert read(tmp_path, blank) == ["missing", "missing", "not-compared"]
    filled = blank.replace("t/a,,percent,,208", "t/a,,percent,10,208")
    assert read(tmp_path, filled)[0] == "match"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cell,rate\nt/a,1\n", "unknown column 'rate'"),
        ("value\n1\n", "no column 'cell'"),
        (HEAD + "t/a,x,percent,,,,,\n", "field 'value': 'x' is not a number"),
        (HEAD + "t/a,,percent,1.5,208,,,\n", "field 'k': '1.5' is not a whole number"),
        (HEAD + "t/a,1\n", "number of fields"),
        (HEAD + ",1,,,,,,\n", "field 'cell' is empty"),
        (HEAD + "t/a,1,,,,,,\nt/a,2,,,,,,\n", "field 'seed' is empty"),
        (HEAD + "t/a,,,,,1,,\n", "neither 'value' nor"),
        (HEAD + "t/a,,percent,1,3,,1x0,\n", "field 'labels'"),
        (HEAD + 't/a,"1\n', "not CSV"),
        (HEAD + "t/a,1_0,percent,,,,,\n", "field 'value': '1_0' is not a number"),
        (HEAD + "t/a,٤.٨,percent,,,,,\n", "field 'value': '٤.٨' is not a number"),
        (HEAD + "t/a,inf,percent,,,,,\n", "field 'value': 'inf' is not a number"),
        (HEAD + "t/a,nan,percent,,,,,\n", "field 'value': 'nan' is not a number"),
        (HEAD + "t/a,,percent,1_0,208,,,\n", "field 'k': '1_0' is not a whole number"),
        (HEAD + "t/a,,percent,10,٢٠٨,,,\n", "field 'n': '٢٠٨' is not a whole number"),
        ("cell,value,value\nt/a,1,2\n", "column 'value' stands twice"),
    ],
)
def test_bad_tables_name_file_and_field(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        read(tmp_path, text)
    assert "t.csv:" in str(caught.value)


@pytest.mark.parametrize("text", ["4.8", ".5e1", "5.", "+4.8", "48e-1"])
def test_plain_numbers_are_read(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, HEAD + f"t/a,{text},percent,,,,,\n")[0] == "invalid"  # without n


def test_binary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="not UTF-8"):
        read_table(tmp_path / "t.csv", expectation(CELLS))
    with pytest.raises(InvalidInput, match="no such file"):
        read_table(tmp_path / "none.csv", expectation(CELLS))


@pytest.mark.parametrize(("unit", "value"), [("percent", 25.0), ("fraction", 0.25), ("", 25.0)])
def test_the_value_of_a_seed_follows_from_its_counts(
    tmp_path: Path, unit: str, value: float
) -> None:
    """Where it is not written; where both are, what is written stands."""
    (tmp_path / "t.csv").write_text(HEAD + f"t/a,,{unit},3,12,0,,\nt/a,20,{unit},3,12,1,,\n")
    results, _ = read_table(tmp_path / "t.csv", expectation(CELLS))
    (cell,) = results.cells
    assert [(seed.value, seed.k, seed.n) for seed in cell.seeds] == [(value, 3, 12), (20.0, 3, 12)]
