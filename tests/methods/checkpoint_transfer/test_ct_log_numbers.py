"""The committed list of the log's numbers, held to the document without its text.

The log's sentences are not in this repository. What is: every number with its line, and the hash of
the lines "LINE:NUMBER" as they were read from the document, so that none can be dropped, added or
changed unnoticed. Where a copy of the document is at hand (``CHECKPOINT_TRANSFER_LOG``), the list
is compared with it directly.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from pathlib import Path

import pytest

from kit.methods.checkpoint_transfer.counting import count_steps
from kit.methods.checkpoint_transfer.recipe import Recipe
from kit.results.ids import parse

LIST = Path(__file__).resolve().parents[3] / "docs/methods/checkpoint-transfer.numbers.csv"
# EleutherAI/unlearn, experiment_logs/checkpoint_transfer_unlearn.md at 02fdf54.
DOCUMENT_SHA256 = "7e9b388043068b8b8a38c4acb1e0f372e058414204dc13ea4bba4b2d84d122ee"
NUMBERS_SHA256 = "b76d39ce51165d83af02b18da57ac4d8fd2ad6305989842c654756b4c12acd15"
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-\d+|K)?")
EXPERIMENTS = {
    "ct-checkpoint-sweep",
    "ct-coefficient-grid",
    "ct-retain-sweep",
    "ct-tamper-short",
    "ct-epoch-sweep",
    "ct-lora-rank-and-full-rank",
    "ct-tamper-long",
}
# Settings of a row that are no field of the recipe: how the log counts, and the attack's own.
OTHER_SETTINGS = {
    "steps",
    "optimizer steps",
    "accumulation",
    "teacher revision",
    "name of the published maps",
    "attack step",
    "attack steps",
    "attack epochs",
    "attack examples",
    "attack learning rate",
    "attack eval every",
}


def _rows() -> list[dict[str, str]]:
    with LIST.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _skeleton(numbers: list[tuple[int, str]]) -> str:
    return "".join(f"{line}:{number}\n" for line, number in numbers)


def _read(text: str) -> list[tuple[int, str]]:
    """Every number of a document with its line, in order."""
    lines = enumerate(text.split("\n"), start=1)
    return [(at, number) for at, line in lines for number in NUMBER.findall(line)]


def _listed() -> list[tuple[int, str]]:
    return [(int(row["line"]), row["number"]) for row in _rows() if row["number"]]


def _hash(numbers: list[tuple[int, str]]) -> str:
    return hashlib.sha256(_skeleton(numbers).encode()).hexdigest()


def test_the_list_holds_every_number_of_the_document() -> None:
    assert len(_listed()) == 559
    assert _hash(_listed()) == NUMBERS_SHA256


@pytest.mark.parametrize("change", ["drop", "alter", "move", "swap"])
def test_a_changed_list_is_noticed(change: str) -> None:
    numbers = _listed()
    line, number = numbers[100]
    if change == "drop":
        del numbers[100]
    elif change == "alter":
        numbers[100] = (line, number + "1")
    elif change == "move":
        numbers[100] = (line + 1, number)
    else:
        numbers[100], numbers[101] = numbers[101], numbers[100]
    assert _hash(numbers) != NUMBERS_SHA256


def test_how_numbers_are_read() -> None:
    text = "a 1e-3 and ~42%\n\n| ret5_rm12 | **0.3848** | 2.09 -> 761K | (30ep) |"
    expected = [(1, "1e-3"), (1, "42"), *[(3, n) for n in ("5", "12", "0.3848", "2.09", "761K")]]
    assert _read(text) == [*expected, (3, "30")]


@pytest.mark.skipif(
    "CHECKPOINT_TRANSFER_LOG" not in os.environ, reason="no copy of the log; its hash is checked"
)
def test_the_list_against_the_document() -> None:
    content = Path(os.environ["CHECKPOINT_TRANSFER_LOG"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == DOCUMENT_SHA256
    assert _read(content.decode("utf-8")) == _listed()


def test_every_number_belongs_somewhere() -> None:
    fields = set(Recipe.__dataclass_fields__)
    for row in _rows():
        where = f"line {row['line']}, {row['number']}"
        match row["kind"]:
            case "cell":
                assert row["experiment"] in EXPERIMENTS, where
                parse(row["what"])
            case "claim":
                assert row["experiment"] in EXPERIMENTS, where
                assert re.fullmatch(r"[a-z0-9-]+", row["what"]), where
            case "setting":
                assert row["what"] in fields | OTHER_SETTINGS, where
            case "job":
                assert re.fullmatch(r"2\d{6}", row["number"]), where
            case "no-result":
                assert len(row["what"].split()) > 2, where
            case "unfinished":
                assert not row["number"], where
                assert row["experiment"] in EXPERIMENTS, where
            case other:
                pytest.fail(f"{where}: {other}")


def test_a_cell_that_is_printed_twice_is_one_number() -> None:
    """24.19 % in the table is .2419 in a sentence; a cell never has two values."""
    values: dict[tuple[str, str], set[float]] = {}
    for row in _rows():
        if row["kind"] == "cell":
            value = float(row["number"])
            share = value / 100 if value > 1 and "loss" not in row["what"] else value
            values.setdefault((row["experiment"], row["what"]), set()).add(round(share, 6))
    assert not {cell: found for cell, found in values.items() if len(found) > 1}


def test_rows_left_unfinished_are_named() -> None:
    unfinished = [int(row["line"]) for row in _rows() if row["kind"] == "unfinished"]
    assert unfinished == [22, 106, 181, 182, 188, 189, 203, 204, 214, 215, 223]


@pytest.mark.parametrize(
    ("experiment", "rows"),
    [
        ("ct-coefficient-grid", 19),
        ("ct-retain-sweep", 6),
        ("ct-epoch-sweep", 4),
        # Those with an accuracy: 2133747, 2133765 and 2133784 have none.
        ("ct-lora-rank-and-full-rank", 10),
    ],
)
def test_number_of_rows(experiment: str, rows: int) -> None:
    accuracies = [
        parse(row["what"])
        for row in _rows()
        if row["experiment"] == experiment and row["kind"] == "cell" and "wmdp" in row["what"]
    ]
    assert len({(cell.row, cell.settings) for cell in accuracies} - {("baseline", ())}) == rows


def test_steps_of_the_tables_are_micro_batches() -> None:
    """Every row of the main tables: its steps are N / 4 of a whole N, on one process."""
    examples = {count_steps(n, 4, 1).micro_batches for n in (1024, 2048, 8192)}
    steps = [int(row["number"]) for row in _rows() if row["what"] == "steps"]
    assert set(steps) == examples
    by_line = {row["line"]: row["number"] for row in _rows() if row["what"] == "steps"}
    assert by_line["37"] == "256"
    assert by_line["50"] == "512"
    assert by_line["51"] == "2048"


def test_steps_of_the_epoch_sweep_are_optimizer_steps() -> None:
    lines: dict[str, dict[str, int]] = {}
    for row in _rows():
        if row["what"] in ("epochs", "optimizer steps"):
            lines.setdefault(row["line"], {}).setdefault(row["what"], int(row["number"]))
    counted = [pair for pair in lines.values() if len(pair) == 2]
    assert len(counted) == 4
    for pair in counted:
        count = count_steps(1024, 4, 4, epochs=pair["epochs"])
        assert count.optimizer_steps == pair["optimizer steps"]
