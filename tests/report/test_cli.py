"""The three commands, through the kit's own entry point."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kit.cli.main import run as kit
from tests.report.builders import verdict
from tests.report.runs import write_run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_run(tmp_path / "run")


def test_report_writes_into_the_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kit(["report", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(folder / "report.html")
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


def test_report_elsewhere_and_as_markdown(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kit(["report", str(folder), "-o", str(tmp_path / "x.html")]) == 0
    assert (tmp_path / "x.html").exists()
    assert not (folder / "report.html").exists()
    capsys.readouterr()
    assert kit(["report", str(folder), "--format", "markdown"]) == 0
    assert capsys.readouterr().out.startswith("# ")
    assert kit(["report", str(folder), "--format", "markdown", "-o", str(tmp_path / "x.md")]) == 0
    assert (tmp_path / "x.md").read_text().startswith("# ")


def test_report_of_a_failed_claim_is_no_failure(folder: Path) -> None:
    write_run(folder, verdict=verdict(verdict="NOT REPRODUCED", exit_code=1))
    assert kit(["report", str(folder)]) == 0


def test_report_without_verdict(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "verdict.json").unlink()
    assert kit(["report", str(folder)]) == 4
    said = capsys.readouterr().err
    assert f"kit verify {folder}" in said
    assert "this run has no verdict.json" in said


def test_generations_do_not_go_into_markdown(folder: Path) -> None:
    assert kit(["report", str(folder), "--format", "markdown", "--show-generations"]) == 2


@pytest.mark.parametrize("module", ["jinja2", "matplotlib"])
def test_missing_extra_says_what_to_install(
    folder: Path, module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KIT_HOME", str(folder / "home"))  # no figure drawn before is kept there
    monkeypatch.setitem(sys.modules, module, None)
    assert kit(["report", str(folder)]) == 4
    assert "pip install 'safety-repro-kit[report]'" in capsys.readouterr().err
    assert not (folder / "report.html").exists()


def test_export_appendix_of_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kit(["export", "appendix", str(folder)]) == 0
    assert "# Artifact appendix" in capsys.readouterr().out


def test_export_appendix_of_an_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert kit(["export", "appendix", "tiny-adapt", "--profile", "paper"]) == 0
    out = capsys.readouterr().out
    assert "Llama" in out
    assert "kit reproduce tiny-adapt --profile paper" in out


def test_export_appendix_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert kit(["export", "appendix", "tiny-adopt"]) == 2
    assert "tiny-adapt" in capsys.readouterr().err


def test_export_crate(folder: Path, tmp_path: Path) -> None:
    assert kit(["export", "crate", str(folder), "-o", str(tmp_path / "out.zip")]) == 0
    assert zipfile.is_zipfile(tmp_path / "out.zip")


def test_log_add_and_show(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = str(tmp_path / "log")
    assert kit(["log", "add", str(folder), "--name", "A. Reader", "--folder", log]) == 0
    assert Path(capsys.readouterr().out.strip()).parent == Path(log)
    assert kit(["log", "show", "--folder", log]) == 0
    assert "A. Reader" in capsys.readouterr().out


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    modules = "appendix crate details facts files generations html log markdown session tables"
    imports = ", ".join(f"kit.report.{name}" for name in modules.split())
    code = (
        f"import sys, kit.cli.report, kit.cli.export, kit.cli.log, {imports};"
        "heavy = ('torch', 'matplotlib', 'jinja2', 'rocrate', 'scipy', 'transformers', 'vllm');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
