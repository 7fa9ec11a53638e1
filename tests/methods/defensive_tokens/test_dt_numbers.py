"""Every number of the two notes is a cell, a claim, a setting, a test, or no result.

The notes are not in this repository. What is: every number with its line, and the hash of the lines
"DOCUMENT:LINE:NUMBER" as they were read, so that none can be dropped, added or changed unnoticed.
Where copies of the notes are at hand (``DT_NOTES``: a folder with both), the list is compared with
them directly. Rows without a number are phrases that say something checkable.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import pytest

from kit.manifest.load import load_expectation
from tests.steps.test_kinds import CATALOG

ROOT = Path(__file__).resolve().parents[3]
LIST = ROOT / "docs/methods/defensive_tokens.numbers.csv"
EXPECTATION = load_expectation(ROOT / "expected_results/defensive_tokens/tiny-adapt.paper.yaml")
SETTINGS = CATALOG.manifest("tiny-adapt").profiles["paper"].set
NUMBERS_SHA256 = "00635d2276e0ddf1d007e46120e67cc3eabfecf1438bb2930830ec4d417057d4"
NOTES = {
    "tiny-adapt-note": (
        "tiny-adapt-iteration-0.md",
        "1d74a05dd79dd279c6791f2b181fd1c7d4bb61d10b2284b96e1976913ce5e2dd",
    ),
    "transfer-note": (
        "transfer-llama3-to-llama31.md",
        "71555717446b879142145938c246463e274f3c3434c98854d733cd36aa8cbbdc",
    ),
}
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
GROUP = "llama3-to-llama31"

Row = dict[str, str]


def rows(kind: str = "") -> list[Row]:
    with LIST.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if kind in ("", row["kind"])]


def digest(listed: list[Row]) -> str:
    lines = (f"{row['document']}:{row['line']}:{row['number']}\n" for row in listed)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def of_each(kind: str) -> Any:
    return pytest.mark.parametrize(
        "row", rows(kind), ids=lambda row: f"{row['document']}-{row['line']}-{row['number']}"
    )


def plain(number: str) -> float:
    return float(number.replace(",", ""))


def cell(name: str) -> Any:
    (found,) = [cell for cell in EXPECTATION.cells if cell.id == f"{GROUP}/{name}"]
    return found


def test_the_list_holds_every_number_of_the_notes() -> None:
    listed = rows()
    assert len(listed) == 184
    assert digest(listed) == NUMBERS_SHA256
    assert digest(listed[1:]) != NUMBERS_SHA256


@pytest.mark.skipif("DT_NOTES" not in os.environ, reason="no copy of the notes; hash is checked")
@pytest.mark.parametrize("document", NOTES)
def test_the_list_against_the_notes(document: str) -> None:
    name, wanted = NOTES[document]
    content = (Path(os.environ["DT_NOTES"]) / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == wanted
    lines = content.decode("utf-8").split("\n")
    read = [(at, n) for at, line in enumerate(lines, start=1) for n in NUMBER.findall(line)]
    own = [row for row in rows() if row["document"] == document]
    numbers = [row for row in own if NUMBER.fullmatch(row["number"])]
    assert [(int(row["line"]), row["number"]) for row in numbers] == read
    assert all(row["number"] in lines[int(row["line"]) - 1] for row in own)


def test_every_number_has_a_kind() -> None:
    kinds = {"cell", "minutes", "items", "count", "claim", "setting", "test", "no-result"}
    assert {row["kind"] for row in rows()} == kinds
    assert all(len(row["what"].split()) > 2 for row in rows("no-result"))


@of_each("cell")
def test_a_number_is_the_value_of_its_cell(row: Row) -> None:
    assert plain(cell(row["what"]).value) == plain(row["number"])


@of_each("minutes")
def test_a_time_is_the_value_of_its_cell(row: Row) -> None:
    """ "~55 min" is printed with more digits in the note's repository: 3,297 seconds."""
    assert round(plain(cell(row["what"]).value) / 60) == int(row["number"])


def test_time_cells_say_what_they_time() -> None:
    for name in ("seconds/labels", "seconds/pipeline"):
        note = cell(name).note
        assert "51,760" in note
        assert "3,200" in note
        assert "labels.scope=all" in note
    assert SETTINGS["labels"]["scope"].value == "consumed"
    steps, batch = (SETTINGS["data"][name].value for name in ("steps", "batch"))
    assert steps * batch == 3200


@of_each("items")
def test_a_number_of_prompts_is_the_n_of_its_cell(row: Row) -> None:
    assert cell(row["what"]).n == int(row["number"])


@of_each("count")
def test_a_count_is_the_printed_rate_of_its_cell(row: Row) -> None:
    found = cell(row["what"])
    assert f"{100 * int(row['number']) / found.n:.1f}" == found.value


@of_each("claim")
def test_a_claim_has_the_number_in_its_sentence(row: Row) -> None:
    (claim,) = [claim for claim in EXPECTATION.claims if claim.id == row["what"]]
    assert row["number"] in claim.sentence


@of_each("setting")
def test_a_setting_is_the_manifest_s(row: Row) -> None:
    step, _, name = row["what"].partition(".")
    value = SETTINGS[step][name].value
    assert plain(row["number"]) in (value if isinstance(value, list) else [value])


@of_each("test")
def test_what_is_said_to_be_tested_is(row: Row) -> None:
    file, _, name = row["what"].partition("::")
    assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8")


def test_the_three_issues_of_the_note_are_tests() -> None:
    """Index mapping, masked gradients under sharding (the kit trains a parameter of its own), and
    the average that the log printed."""
    issues = [row for row in rows("test") if row["document"] == "tiny-adapt-note"]
    assert [row["number"] for row in issues] == ["1", "2", "3"]
