"""``kit verify`` as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from kit.cli.main import run as kit
from kit.durable import write_atomic
from kit.verify.tampered import fit
from tests.verify.conftest import cells_of, write_run


def verdict_of(path: Path) -> dict[str, Any]:
    return json.loads((path / "verdict.json").read_text())  # type: ignore[no-any-return]


def test_reproduced(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kit(["verify", str(run_dir), "--explain"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "verdict REPRODUCED (2 of 2 primary claims)" in said
    assert said[-1] == f"next: kit report {run_dir}"
    assert any(line.startswith("cell t1/defended reproduced: published=4.8") for line in said)
    written = verdict_of(run_dir)
    assert written["verdict"] == "REPRODUCED"
    assert len(written["results_sha256"]) == len(written["expectation_sha256"]) == 64
    assert written["expectation"] == "expected_results/family/made.mini.yaml"


@pytest.mark.parametrize(
    ("none", "defended", "code"), [(110, 9, 0), (110, 150, 1), (110, 20, 3), (10, 9, 3)]
)
def test_exit_codes(run_dir: Path, none: int, defended: int, code: int) -> None:
    write_run(run_dir, cells_of(none, defended))
    assert kit(["verify", str(run_dir)]) == code


def test_json_is_the_file(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit(["verify", str(run_dir), "--json"])
    assert json.loads(capsys.readouterr().out) == verdict_of(run_dir)


def test_junit(run_dir: Path, tmp_path: Path) -> None:
    write_run(run_dir, cells_of(10, 9))
    kit(["verify", str(run_dir), "--junit", str(tmp_path / "j.xml")])
    suites = {suite.get("name"): suite for suite in ET.parse(tmp_path / "j.xml").getroot()}
    assert set(suites) == {"cells", "claims", "canaries"}
    assert suites["cells"].get("tests") == "3"
    assert suites["cells"].get("failures") == "1"
    failed = suites["cells"].find("testcase/failure/..")
    assert failed is not None
    assert failed.get("name") == "t1/none"


@pytest.mark.parametrize("place", ["nowhere/j.xml", "file/j.xml", "/"])
def test_junit_that_cannot_be_written(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "file").touch()
    kit(["verify", str(run_dir), "--junit", str(tmp_path / place)])
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / place}: ")
    assert "fault of the kit" not in said


def test_junit_holds_every_cell_claim_and_canary(run_dir: Path, tmp_path: Path) -> None:
    """Counts agree with the cases, names are unique, and hostile text stays text."""
    cells = cells_of(10, 9)
    cells[2] = {"id": "t2/loss", "unit": "loss", "not_run": "<b>&\x00]]> no time\ud7ff"}
    broken = {"id": "x", "step": "s", "passed": False, "detail": "<&>", "cells": ["t1/defended"]}
    write_run(run_dir, cells, canaries=[broken])
    kit(["verify", str(run_dir), "--junit", str(tmp_path / "j.xml")])
    root = ET.parse(tmp_path / "j.xml").getroot()
    assert root.tag == "testsuites"
    assert root.get("name") == "made.mini"
    for suite in root:
        cases = suite.findall("testcase")
        assert int(suite.get("tests", "")) == len(cases)
        for tag, count in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert int(suite.get(count, "")) == len(suite.findall(f"testcase/{tag}"))
        assert len({(case.get("classname"), case.get("name")) for case in cases}) == len(cases)
    outcome = {
        case.get("name"): (case[0].tag if len(case) else "passed") for case in root.iter("testcase")
    }
    assert outcome == {
        "t1/none": "failure",
        "t1/defended": "error",
        "t2/loss": "skipped",
        "defence-helps": "skipped",
        "nearly-zero": "skipped",
        "x": "error",
    }
    (skipped,) = (case[0] for case in root.iter("testcase") if case.get("name") == "t2/loss")
    assert "<b>&?]]> no time" in skipped.get("message", "")


def test_at_80_columns(run_dir: Path) -> None:
    from io import StringIO

    from rich.console import Console

    from kit.verify.basis import read_basis, verdict_of
    from kit.verify.render import render

    out = StringIO()
    render(verdict_of(read_basis(str(run_dir))), Console(file=out, force_terminal=True, width=80,
                                                        no_color=True), every=True)  # fmt: skip
    text = out.getvalue()
    assert "t1/defended" in text
    assert "REPRODUCED" in text


def test_overrides_in_the_record_are_marked(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(run_dir, cells_of(), changed={"overrides": ["train.lr=1"], "notes": ["n"]})
    kit(["verify", str(run_dir)])
    assert "REPRODUCED (modified) (2 of 2" in capsys.readouterr().out
    assert verdict_of(run_dir)["overrides"] == ["train.lr=1"]
    assert "n" in verdict_of(run_dir)["notes"]


def test_another_seed_is_marked(run_dir: Path) -> None:
    write_run(run_dir, cells_of(), changed={"modified": True, "seed": 7})
    kit(["verify", str(run_dir)])
    assert verdict_of(run_dir)["overrides"] == ["seed=7"]


def test_rehearsal(run_dir: Path) -> None:
    write_run(run_dir, cells_of(), changed={"rehearsal": True})
    assert kit(["verify", str(run_dir)]) == 0
    assert verdict_of(run_dir)["verdict"] == "REHEARSED"


def test_another_expectation(run_dir: Path, repo: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    given = repo / "expected_results" / "family" / "made.mini.yaml"
    text = given.read_text().replace("../reference/", f"{repo}/expected_results/reference/")
    path.write_text(text.replace('value: "10"', 'value: "1"'))
    (tmp_path / "published.jsonl").write_text((given.parent / "published.jsonl").read_text())
    assert kit(["verify", str(run_dir), "--expectation", str(path)]) == 1


def test_a_table_from_elsewhere(
    repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "theirs.csv"
    bits = "1" * 9 + "0" * 199
    path.write_text(
        "cell,unit,k,n,value,seed,labels\n"
        "t1/none,percent,110,208,,,\n"
        f"t1/defended,percent,9,208,,,{bits}\n"
        "t2/loss,loss,,,1.45,0,\n"
        "t2/loss,loss,,,1.52,1,\n"
    )
    assert kit(["verify", "made", "--results", str(path)]) == 0
    said = capsys.readouterr().out
    assert "REPRODUCED (not run here) (2 of 2" in said
    assert not list(repo.rglob("verdict.json"))
    path.with_suffix(".json").write_text(json.dumps(cells_of()[:1]))
    assert kit(["verify", "made", "--results", str(path.with_suffix(".json"))]) == 3


def test_an_unknown_cell_is_refused_from_elsewhere_and_noted_in_a_run(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [*cells_of(), {"id": "t9/more", "unit": "loss", "value": 1.0}]
    write_run(run_dir, more)
    assert kit(["verify", str(run_dir)]) == 0
    note = "1 measured cell is not in the expectation and not compared: t9/more"
    assert note in verdict_of(run_dir)["notes"]
    (run_dir / "verdict.json").unlink()
    capsys.readouterr()
    assert kit(["verify", "made", "--results", str(run_dir / "results.json")]) == 4
    assert "unknown cell 't9/more'" in capsys.readouterr().err


def test_a_table_that_the_run_did_not_write_is_refused(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Derived numbers have no labels that would contradict a change by hand."""
    table = run_dir / "results.json"
    (run_dir / "SHA256SUMS").unlink()  # the record alone says so, too
    assert kit(["verify", str(run_dir)]) == 3
    table.write_text(table.read_text().replace("1.52", "1.49").replace(str(4.52 / 3), "1.4966667"))
    capsys.readouterr()
    assert kit(["verify", str(run_dir)]) == 4
    assert "results.json is not the table that this run wrote" in capsys.readouterr().err


def test_the_table_of_a_run_can_be_brought_whole(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It measures more than the document prints, and its cells name the steps they come from."""
    more = [*cells_of(), {"id": "t9/more", "unit": "loss", "value": 1.0}]
    write_run(run_dir, [cell | {"step": "evaluate"} for cell in more])
    assert kit(["verify", "made", "--results", str(run_dir / "results.json"), "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert "1 measured cell is not in the expectation and not compared: t9/more" in verdict["notes"]
    assert (verdict["verdict"], verdict["not_run_here"]) == ("REPRODUCED", True)


def test_selftest(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kit(["verify", str(run_dir), "--selftest"]) == 0
    screen = capsys.readouterr().out.splitlines()
    assert len(screen) <= 24
    assert "redrawn 200 times" in screen[0]
    assert kit(["verify", str(run_dir), "--selftest", "--all"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("selftest t1/none binomial: false alarms")
    assert "(theory" in said[0]
    assert said[-len(screen) :] == screen
    assert not (run_dir / "verdict.json").exists()
    assert kit(["verify", str(run_dir), "--selftest", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["reports"][0]["cell"] == "t1/none"


BAD: list[tuple[str, Any, str]] = [
    ("truncated", lambda text: text[: len(text) // 2], "results.json"),
    ("nan", lambda text: text.replace(str(100 * 110 / 208), "NaN"), "results.json"),
    ("infinite", lambda text: text.replace(str(100 * 110 / 208), "1e999"), "results.json"),
    ("k above n", lambda text: text.replace('"k": 110', '"k": 300'), "field 'k': 300 of 208"),
    ("edited k", lambda text: text.replace('"k": 110', '"k": 100'), "contradicts k/n = 100/208"),
    ("percent as fraction", lambda text: text.replace('"percent"', '"fraction"'), "contradicts"),
    ("edited mean", lambda text: text.replace('"loss", "value": 1.5', '"loss", "value": 1.7'),
     "contradicts the mean of its seeds"),
    ("seed twice", lambda text: text.replace('"seed": "1"', '"seed": "0"'),
     "seed '0' stands twice"),
    ("no labels file", lambda text: text.replace("labels.jsonl", "gone.jsonl"), "gone.jsonl"),
    ("no labels line", lambda text: text.replace("#defended", "#other"), "'other'"),
    ("shorter labels", lambda text: text.replace('0.04326923076923077, "k": 9, "n": 208',
                                                 '0.043478260869565216, "k": 9, "n": 207'),
     "208 labels for n = 207"),
    ("another version", lambda text: text.replace("1-A", "2-A"), "not comparable"),
    ("another experiment", lambda text: text.replace('"made"', '"other"'), "other"),
    ("unknown field", lambda text: text.replace('"cells"', '"rows"'), "rows"),
    ("another format", lambda text: text.replace('"schema_version": 1', '"schema_version": 9'),
     "schema_version"),
    ("a unit that does not compare", lambda text: text.replace('"unit": "loss"', '"unit": "norm"'),
     "field 'unit'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spoil", "says"), BAD, ids=[name for name, _, _ in BAD])
def test_bad_input_leaves_everything_as_it_was(
    run_dir: Path, name: str, spoil: Any, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_dir / "verdict.json").write_text("old")
    table = run_dir / "results.json"
    spoiled = spoil(table.read_text())
    assert spoiled != table.read_text()
    table.write_text(spoiled)
    fit(run_dir)
    code = kit(["verify", str(run_dir)])
    said = capsys.readouterr()
    assert code == (2 if name == "another experiment" else 4)
    assert said.out == ""
    assert says in said.err
    assert said.err.count("error:") == 1
    assert (run_dir / "verdict.json").read_text() == "old"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"id": "defended", "labels": [1, 0', "labels.jsonl:1"),
        ('{"id": "defended", "labels": [1, 2]}', "other than 0 and 1"),
        ('{"id": "defended", "labels": [1, 0]}', "2 labels for n = 208"),
        ('{"id": "defended", "labels": [1, 0], "items": ["a"]}', "'items'"),
        ('{"id": "defended", "labels": [1, 0], "items": ["a", "a"]}', "item twice"),
        ('{"labels": [1]}', "id"),
        ('{"id": "defended", "labels": [' + "0," * 207 + "0]}", "0 ones for k = 9"),
    ],
)
def test_bad_labels(
    run_dir: Path, line: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_dir / "labels.jsonl").write_text(line + "\n")
    fit(run_dir)
    assert kit(["verify", str(run_dir)]) == 4
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["", "results.json"])
def test_no_run(run_dir: Path, missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_dir if missing else run_dir / "nothing"
    (path / "results.json").unlink(missing_ok=True)
    assert kit(["verify", str(path)]) == 4
    assert "kit run" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["verify", "report"])
def test_an_experiment_in_place_of_a_run(
    run_dir: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.utime(run_dir, (1, 1))
    newer = run_dir.with_name("made-mini-2")
    newer.mkdir()
    assert kit([command, "made"]) == 4
    assert "did you mean its newest run, runs/made-mini-2?" in capsys.readouterr().err
    assert kit([command, "other"]) == 4
    assert "kit run EXP" in capsys.readouterr().err


def test_a_brought_table_that_is_none(
    repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "table.txt").write_text("cell value")
    assert kit(["verify", "made", "--results", str(tmp_path / "table.txt")]) == 4
    said = capsys.readouterr().err
    assert "kit show EXP --template" in said
    assert "run the experiment again" not in said


def test_no_expectation(run_dir: Path, repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repo / "expected_results" / "family" / "made.mini.yaml").unlink()
    assert kit(["verify", str(run_dir)]) == 3
    assert "NOT COMPARED (no expectation; 3 cells measured)" in capsys.readouterr().out
    verdict = json.loads((run_dir / "verdict.json").read_text())
    assert {cell["verdict"] for cell in verdict["cells"]} == {"not-compared"}
    assert verdict["claims"] == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('margin: "20", ', "", "field 'tolerance.margin' is missing"),
        ("labels: published.jsonl#defended", "note: x", "published 'labels'"),
        ("published.jsonl", "gone.jsonl", "gone.jsonl"),
        ("made.mini.jsonl", "gone.jsonl", "the record of reference runs cannot be read"),
        ("[t1/defended, t1/none]", "[t1/defended, t1/no]", "unknown cell 't1/no'"),
    ],
)
def test_bad_expectation(
    run_dir: Path, repo: Path, old: str, new: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = repo / "expected_results" / "family" / "made.mini.yaml"
    path.write_text(path.read_text().replace(old, new))
    assert kit(["verify", str(run_dir)]) == 4
    assert says in capsys.readouterr().err


def test_write_atomic_leaves_no_part_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"1")
    write_atomic(tmp_path / "a", b"2")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


PROBE = """
import sys
from kit.cli.main import run
code = run(["verify", sys.argv[1]])
heavy = {"torch", "transformers", "scipy.stats", "pandas", "matplotlib"} & set(sys.modules)
print("probe", code, sorted(heavy))
"""


def test_light(run_dir: Path) -> None:
    """Never torch, never scipy.stats; how long it takes is measured by ``make bench``."""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", PROBE, str(run_dir)], capture_output=True,
                          text=True, env=env, check=True)  # fmt: skip
    assert done.stdout.splitlines()[-1].endswith("[]")
    assert done.stdout.splitlines()[-1].startswith("probe 0 ")


def test_what_no_repeat_can_show_is_a_note_of_every_run(run_dir: Path, repo: Path) -> None:
    path = repo / "expected_results" / "family" / "made.mini.yaml"
    asked = 'cells: [t1/defended]\n    value: "10"'
    path.write_text(path.read_text().replace(asked, 'cells: [t1/none]\n    value: "50"'))
    assert kit(["verify", str(run_dir)]) == 3
    (note,) = (one for one in verdict_of(run_dir)["notes"] if "themselves" in one)
    assert note.startswith(
        "of 1 primary claims the printed numbers themselves carry 0 (nearly-zero"
    )
