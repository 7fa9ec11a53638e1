"""How ``kit reproduce`` and a self-test end on the screen."""

from __future__ import annotations

import io
import json
from pathlib import Path

import click
import pytest
from rich.console import Console

from kit.cli.main import run as kit
from kit.cli.reproduce import finish
from kit.cli.state import State
from tests.verify.conftest import cells_of, write_run


@pytest.mark.parametrize("mode", ["plain", "json"])
@pytest.mark.parametrize(("defended", "code"), [(9, 0), (150, 1)])
def test_a_reproduction_ends_with_verdict_and_report(
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mode: str,
    defended: int,
    code: int,
) -> None:
    write_run(run_dir, cells_of(110, defended))
    monkeypatch.setattr("kit.report.session.write_report", lambda folder: folder / "report.html")
    with click.Context(click.Command("x"), obj=State(progress=mode)):  # type: ignore[arg-type]
        assert finish(run_dir) == code
    out = capsys.readouterr().out
    assert str(run_dir / "report.html") in out.splitlines()[-1]
    written = json.loads((run_dir / "verdict.json").read_text())
    assert written["exit_code"] == code
    if mode == "json":
        first, last = out.splitlines()
        assert json.loads(first) == written
        assert last == str(run_dir / "report.html")
    else:
        assert out.startswith(written["verdict"])


def test_lines_of_a_self_test_are_not_broken_by_a_narrow_terminal(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for width in (20, 1000):
        out = io.StringIO()
        narrow = Console(file=out, width=width, force_terminal=True)
        monkeypatch.setattr("kit.cli.verify.console", lambda made=narrow: made)
        assert kit(["verify", str(run_dir), "--selftest", "--all"]) == 0
        said.append(out.getvalue())
    assert said[0] == said[1]
    assert "\x1b" not in said[0], "neither highlighted nor marked up"
