"""`kit show EXP --template`: the empty table, filled in, goes back into `kit verify`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from kit.cli.main import run as kit
from kit.manifest.load import load_expectation

ROOT = Path(__file__).parents[2]
EXPERIMENT = "tiny-adapt-random-init"


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("KIT_ROOT", str(ROOT))
    assert kit(["show", EXPERIMENT, "--template"]) == 0
    return capsys.readouterr().out


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_template_names_every_comparable_cell_and_no_number(template: str) -> None:
    expected = load_expectation(
        ROOT / "expected_results" / "defensive_tokens" / f"{EXPERIMENT}.paper.yaml"
    )
    rows = rows_of(template)
    assert [row["cell"] for row in rows] == [c.id for c in expected.cells if c.tolerance]
    assert {row["n"] for row in rows if row["unit"] == "percent"} == {"208"}
    assert not any(row["value"] or row["k"] or row["labels"] for row in rows)


def test_filled_in_and_verified(
    template: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = {
        cell.id: cell.value
        for cell in load_expectation(
            ROOT / "expected_results" / "defensive_tokens" / f"{EXPERIMENT}.paper.yaml"
        ).cells
    }
    rows = rows_of(template)
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"value": published[row["cell"]]} for row in rows)
    path = tmp_path / "filled.csv"
    path.write_text(out.getvalue())
    command = ["verify", EXPERIMENT, "--results", str(path), "--profile", "paper", "--json"]
    assert kit(command) == 3  # two primary claims that 208 prompts cannot decide
    verdict = json.loads(capsys.readouterr().out)
    assert {cell["verdict"] for cell in verdict["cells"]} == {"match"}


def test_left_empty_everything_is_missing(
    template: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "empty.csv"
    path.write_text(template)
    command = ["verify", EXPERIMENT, "--results", str(path), "--profile", "paper", "--json"]
    assert kit(command) == 3
    verdict = json.loads(capsys.readouterr().out)
    words = {cell["verdict"] for cell in verdict["cells"] if cell["status"] == "reported"}
    assert (verdict["verdict"], words) == ("INCOMPLETE", {"missing"})


def test_a_profile_without_expectation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KIT_ROOT", str(ROOT))
    assert kit(["show", EXPERIMENT, "--template", "--profile", "huge"]) == 2
    assert "has no expectation at profile 'huge'" in capsys.readouterr().err
