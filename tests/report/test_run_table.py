"""The numbers of a run as CSV that the verifier reads back, and as LaTeX."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest

from kit.cli.main import run as kit
from kit.errors import Preflight
from kit.manifest.expectation_types import Expectation
from kit.manifest.load import load_expectation
from kit.report.run_table import to_csv, to_latex
from kit.results.types import Cell, LineRef, SeedValue
from kit.verify.tables import read_table

CELLS = [
    Cell(id="g/asr/none", unit="percent", value=100 * 1 / 7, k=1, n=7, labels="labels.jsonl#a"),
    Cell(
        id="g/gap/x_1",
        unit="ratio",
        value=0.9,
        seeds=[SeedValue(seed="p/1", value=0.8), SeedValue(seed="p/2", value=1.0 / 3)],
    ),
    Cell(id="g/utility/x", unit="percent", not_run="no judge, none asked"),
]
LABELS = {"id": "a", "items": list("abcdefg"), "labels": [0, 0, 1, 0, 0, 0, 0]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run directory with numbers and no verdict."""
    import msgspec

    head = {"schema_version": 1, "experiment": "own", "version": "1-A", "profile": "mini"}
    results = {**head, "cells": msgspec.to_builtins(CELLS)}
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "labels.jsonl").write_text(json.dumps(LABELS) + "\n")
    return tmp_path


def expectation(folder: Path) -> Expectation:
    path = folder / "own.mini.yaml"
    path.write_text(
        "schema_version: 1\nexperiment: own\nprofile: mini\nversion: 1-A\ncells: []\nclaims: []\n"
    )
    return load_expectation(path)


def test_the_verifier_reads_back_what_was_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kit(["export", "table", str(folder), "--labels", "-o", str(folder / "t.csv")]) == 0
    assert capsys.readouterr().out.splitlines() == [str(folder / "t.csv")]
    found, labels = read_table(folder / "t.csv", expectation(folder))
    by_id = {cell.id: cell for cell in found.cells}
    first = by_id["g/asr/none"]
    assert (first.value, first.k, first.n) == (100 * 1 / 7, 1, 7)
    assert first.labels is not None
    assert labels.get(first.labels).labels == LABELS["labels"]
    assert by_id["g/gap/x_1"].seeds == CELLS[1].seeds
    assert by_id["g/utility/x"].not_run == "no judge, none asked"


def test_labels_only_when_asked_and_cells_by_prefix(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kit(["export", "table", str(folder), "--cells", "g/asr/", "--cells", "g/gap/"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["cell"], row["seed"], row["labels"]) for row in rows] == [
        ("g/asr/none", "", ""),
        ("g/gap/x_1", "p/1", ""),
        ("g/gap/x_1", "p/2", ""),
    ]


def test_latex_gives_mean_spread_and_what_it_is_over() -> None:
    text = to_latex(CELLS)
    lines = [line.replace(" ", "") for line in text.splitlines()]
    assert r"g/asr/none&14.29&percent&-&1of7\\" in lines
    assert r"g/gap/x\_1&0.9&ratio&0.33&2seeds\\" in lines
    assert r"g/utility/x&nojudge,noneasked&percent&-&-\\" in lines
    assert r"\toprule" in lines


def test_a_cell_of_one_seed_has_no_spread() -> None:
    one = Cell(id="c", unit="ratio", value=0.5, seeds=[SeedValue(seed="1", value=0.5)])
    assert r"c&0.5&ratio&-&1seed\\" in to_latex([one]).replace(" ", "")
    assert to_csv([one]).splitlines()[1] == "c,0.5,ratio,,,1,,"


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (["--format", "latex", "--labels"], 2, "--labels goes with --format csv"),
        (["--cells", "h/"], 2, "no cell of this run begins with 'h/'"),
        (["-o", "absent/t.csv"], 4, "there is no folder"),
    ],
)
def test_what_cannot_be_is_said(
    folder: Path, line: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kit(["export", "table", str(folder), *line]) == code
    assert words in capsys.readouterr().err


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kit(["export", "table", str(tmp_path / "none")]) == 4
    assert "there is no such run directory" in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    assert kit(["export", "table", str(tmp_path / "none")]) == 4
    assert "there is no results.json here" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["pandas", "jinja2"])
def test_latex_says_what_to_install(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "pandas.io.formats.style", raising=False)
    with pytest.raises(Preflight, match="LaTeX table needs a library") as caught:
        to_latex(CELLS)
    assert "[report]" in caught.value.next_step


def test_a_curve_is_no_line_of_numbers() -> None:
    curve = Cell(id="a/loss/x", unit="loss", trajectory=LineRef(series="s", line="x"))
    number = Cell(id="a/loss/y", unit="loss", value=1.5)
    assert [line.split(",")[0] for line in to_csv([curve, number]).splitlines()[1:]] == ["a/loss/y"]
    assert "a/loss/x" not in to_latex([curve, number])


@pytest.mark.parametrize("form", ["csv", "latex"])
def test_nothing_in_a_table_acts_on_a_terminal(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table may come from a stranger; escapes and direction overrides are shown as signs."""
    acts = "\x1b[31mred\u202eder"
    cells = [
        {"id": f"a/{acts}", "unit": acts, "value": 1.0, "seeds": [{"seed": acts, "value": 1.0}]},
        {"id": f"b/{acts}", "unit": "percent", "not_run": f"no\x1b]0;title\x07 {acts}"},
    ]
    head = {"schema_version": 1, "experiment": "own", "version": "1-A", "profile": "mini"}
    (tmp_path / "results.json").write_text(json.dumps({**head, "cells": cells}))
    assert kit(["export", "table", str(tmp_path), "--format", form]) == 0
    out = capsys.readouterr().out
    assert "red" in out
    assert not {"\x1b", "\x07", "\u202e"} & set(out)
