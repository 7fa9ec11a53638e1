"""Every number of the notes is a claim, a sourced setting, an attack's setting, or no result.

The notes are not in this repository. What is: every number with its line, and the hash of the lines
"LINE:NUMBER" as they were read, so that none can be dropped, added or changed unnoticed. Where a
copy of the notes is at hand (``TAR_NOTES``), the list is compared with it directly.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit.methods.tar.presets import sourced
from kit.methods.tar.published import SHORTEST_WRITEUP
from kit.steps.tar.params import Train
from kit.tampering.attack import FIRST_SHARE, steps_of_epochs
from kit.tampering.suites import tar_red_team, tar_refusal

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/methods/tar.md"
LIST = ROOT / "docs/methods/tar.numbers.csv"
NOTES_SHA256 = "b53603cfaf04cb4bb6d5e7e0f022cf28f3000f1ebb52938b5f2fd5fd7fc4734a"
NUMBERS_SHA256 = "3f819c6259e1d32e90439b84a2ee28981306e36a4e420d3efc74edff58d9ccbf"
NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e-\d+)?")

Row = dict[str, str]


def rows(kind: str = "") -> list[Row]:
    with LIST.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if kind in ("", row["kind"])]


def digest(numbers: list[tuple[int, str]]) -> str:
    return hashlib.sha256("".join(f"{at}:{n}\n" for at, n in numbers).encode()).hexdigest()


def listed() -> list[tuple[int, str]]:
    return [(int(row["line"]), row["number"]) for row in rows()]


def of_each(kind: str) -> Any:
    return pytest.mark.parametrize(
        "row", rows(kind), ids=lambda row: f"line-{row['line']}-{row['number']}"
    )


def test_the_list_holds_every_number_of_the_notes() -> None:
    numbers = listed()
    assert len(numbers) == 109
    assert digest(numbers) == NUMBERS_SHA256
    assert digest(numbers[1:]) != NUMBERS_SHA256


@pytest.mark.skipif("TAR_NOTES" not in os.environ, reason="no copy of the notes; hash is checked")
def test_the_list_against_the_notes() -> None:
    content = Path(os.environ["TAR_NOTES"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == NOTES_SHA256
    lines = enumerate(content.decode("utf-8").split("\n"), start=1)
    assert [(at, n) for at, line in lines for n in NUMBER.findall(line)] == listed()


def test_every_number_has_a_kind() -> None:
    known = {"claim", "cell", "setting", "share", "suite", "page", "count", "pin", "writeup"}
    assert {row["kind"] for row in rows()} == known | {"no-result"}
    assert all(len(row["what"].split()) > 2 for row in rows("no-result"))


@of_each("claim")
def test_a_claim_is_among_those_of_its_experiment(row: Row) -> None:
    path = ROOT / "expected_results/tar" / f"{row['of']}.mini.yaml"
    claims = yaml.safe_load(path.read_text(encoding="utf-8"))["claims"]
    (claim,) = [claim for claim in claims if claim["id"] == row["what"]]
    text = claim["sentence"] + claim["place"]
    assert row["number"] in text


@of_each("setting")
def test_a_setting_is_the_preset_s(row: Row) -> None:
    value = sourced("paper", row["of"])[row["what"]].value
    assert float(row["number"]) in (value if isinstance(value, tuple) else (value,))


@of_each("share")
def test_the_division_is_the_default_of_the_step(row: Row) -> None:
    default: Any = inspect.signature(Train).parameters["adversary_share"].default
    assert float(row["number"]) / 100 in (default, pytest.approx(1 - default))


@of_each("suite")
def test_an_attack_setting_is_the_suite_s(row: Row) -> None:
    number = float(row["number"])
    red_team, refusal = tar_red_team(), tar_refusal()
    epochs = {
        epochs
        for epochs in (1, 5, 10, 20)
        if all(a.steps == steps_of_epochs(541, a.batch, epochs) for a in refusal)
    }
    held: dict[tuple[str, str], set[float]] = {
        ("tar_red_team", "steps"): {attack.steps for attack in red_team},
        ("tar_red_team", "learning_rate"): {a.optimizer.learning_rate for a in red_team},
        ("tar_red_team", "first_share"): {100 * FIRST_SHARE, 100 * (1 - FIRST_SHARE)},
        ("tar_refusal", "adversaries"): {len(refusal)},
        ("tar_refusal", "epochs"): set(epochs),
        ("tar_refusal", "rows"): {inspect.signature(tar_refusal).parameters["rows"].default},
    }
    assert number in held[row["of"], row["what"]]


@of_each("page")
def test_a_recipe_stands_on_the_page(row: Row) -> None:
    lines = [line for line in PAGE.read_text(encoding="utf-8").split("\n") if row["what"] in line]
    numbers = {n for line in lines for n in NUMBER.findall(line.replace("⁻", "-"))}
    assert row["number"] in numbers


@of_each("cell")
def test_a_published_number_stands_in_its_cell(row: Row) -> None:
    path = ROOT / "expected_results/tar" / f"{row['of']}.paper.yaml"
    cells = yaml.safe_load(path.read_text(encoding="utf-8"))["cells"]
    (cell,) = [cell for cell in cells if cell["id"] == row["what"]]
    assert cell["value"] == row["number"]


@of_each("count")
def test_a_count_of_texts_is_the_canary_s_of_its_experiment(row: Row) -> None:
    path = ROOT / "manifests/tar" / f"{row['of']}.yaml"
    data = yaml.safe_load(path.read_text(encoding="utf-8"))["profiles"]["paper"]["set"]["data"]
    assert f"{row['what']}={row['number'].replace(',', '')}" in data["published"]["value"]


@of_each("pin")
def test_a_count_of_a_whole_set_is_its_pin_s(row: Row) -> None:
    pins = yaml.safe_load((ROOT / "manifests/pins.yaml").read_text(encoding="utf-8"))["pins"]
    (pin,) = [pin for pin in pins if pin["id"] == row["of"]]
    assert pin["attributes"][row["what"]] == int(row["number"].replace(",", ""))


@of_each("writeup")
def test_the_shortest_writeup_is_that_of_the_reader(row: Row) -> None:
    assert int(row["number"]) == SHORTEST_WRITEUP
