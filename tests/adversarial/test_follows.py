"""What repeats a verdict refuses one that does not follow from the files beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.cli.main import run as kit
from kit.verify.tampered import fit

Edit = Callable[[Path], None]


def commands(run: Path, out: Path) -> list[list[str]]:
    """Everything that repeats a verdict."""
    return [
        ["report", str(run), "-o", str(out / "r.html")],
        ["report", str(run), "--format", "markdown"],
        ["log", "add", str(run), "--folder", str(out / "log"), "--hardware", "a laptop"],
        ["export", "crate", str(run), "-o", str(out / "c.zip")],
        ["export", "appendix", str(run)],
    ]


def word(run: Path) -> None:
    path = run / "verdict.json"
    path.write_text(path.read_text().replace('"REPRODUCED"', '"NOT REPRODUCED"'))


def digit(run: Path) -> None:
    content = json.loads((run / "verdict.json").read_text())
    content["cells"][0]["value"] += 1.0
    (run / "verdict.json").write_text(json.dumps(content))


def reason(run: Path) -> None:
    content = json.loads((run / "verdict.json").read_text())
    content["reasons"] = []
    (run / "verdict.json").write_text(json.dumps(content))


def canaries(run: Path) -> None:
    """The table changed afterwards, with all hashes made to fit."""
    content = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(content | {"canaries": []}))
    fit(run)


def threshold(run: Path) -> None:
    path = run.parents[1] / "expected_results/family/made.mini.yaml"
    path.write_text(path.read_text().replace('value: "0.85"', 'value: "0.999"'))


@pytest.mark.parametrize("edit", [word, digit, reason, canaries, threshold])
def test_it_is_refused_everywhere(
    edit: Edit, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kit(["verify", str(run_dir)]) == 0
    for arguments in commands(run_dir, tmp_path):
        assert kit(arguments) == 0, arguments
    left = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    edit(run_dir)
    for arguments in commands(run_dir, tmp_path):
        capsys.readouterr()
        assert kit(arguments) == 4, arguments
        said = capsys.readouterr()
        assert "the verdict does not follow from the files beside it" in said.err
        assert said.out == ""
    assert all(
        path.read_bytes() == left[path] for path in left if tmp_path / "repo" not in path.parents
    )


def test_another_expectation_is_said_and_looked_at_again(
    run_dir: Path, repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.yaml"
    text = (repo / "expected_results/family/made.mini.yaml").read_text()
    own.write_text(text.replace('value: "0.85"', 'value: "0.5"'))
    assert kit(["verify", str(run_dir), "--expectation", str(own)]) == 0
    assert "REPRODUCED (modified)" in capsys.readouterr().out
    assert kit(["report", str(run_dir), "-o", str(tmp_path / "r.html")]) == 0
    own.write_text(text)
    assert kit(["report", str(run_dir), "-o", str(tmp_path / "r.html")]) == 4
    own.unlink()
    assert kit(["report", str(run_dir), "-o", str(tmp_path / "r.html")]) == 4


def test_making_it_anew_takes_less_than_a_second(run_dir: Path) -> None:
    from kit.report.files import read_run

    kit(["verify", str(run_dir)])
    began = time.process_time()
    read_run(run_dir)
    assert time.process_time() - began < 1.0
