"""What AGENTS.md promises to programs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kit import errors
from kit.cli.main import run as kit
from tests.typed import typed

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
COMMANDS = [text for text in re.findall(r"`kit ([^`]+)`", TEXT) if text.endswith("--json")]


def test_every_kind_of_command_is_there() -> None:
    assert {text.split()[0] for text in COMMANDS} == {"list", "show", "plan", "doctor", "validate"}


@pytest.mark.parametrize("text", COMMANDS)
def test_standard_output_is_one_json_document(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    named = {"EXP": "tiny-adapt", "FILE": "manifests/defensive_tokens/tiny-adapt.yaml"}
    words = [named.get(word, word) for word in text.split()]
    code = kit(words)
    assert isinstance(json.loads(capsys.readouterr().out), dict | list)
    # Here is no GPU, and doctor says so by its exit code.
    assert code == (errors.EXIT_INVALID if words[0] == "doctor" else errors.EXIT_OK)


def stream(printed: str) -> tuple[list[dict[str, Any]], str]:
    """The objects of a stream, and the path that ends it; empty where it ends with an object."""
    lines = printed.splitlines()
    path = "" if lines[-1].startswith("{") else lines.pop()
    return [json.loads(line) for line in lines], path


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert kit(["new", str(tmp_path / "paper")]) == 0
    monkeypatch.chdir(tmp_path / "paper")
    return tmp_path / "paper"


def reproduce(paper: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as a program would."""
    line = ["--progress", "json", "reproduce", "./paper.yaml", "--blind", "--jobs", "1"]
    return typed(paper, *line)


def test_the_stream_of_reproduce_is_as_documented(paper: Path) -> None:
    done = reproduce(paper)
    objects, path = stream(done.stdout)
    doctor, *events, verdict = objects
    assert doctor["can_run"] is True
    assert {check["level"] for check in doctor["checks"]} <= {"OK", "WARN", "FAIL"}
    names = [event["event"] for event in events]
    start = names.index("run-started")
    assert start > 0
    assert all(name.startswith("fetch.") for name in names[:start])
    assert all({"pin", "detail"} <= event.keys() for event in events[:start])
    assert all("time" in event for event in events[start:])
    assert "step-done" in names
    assert names[-1] == "run-finished"
    report = paper / path
    assert report.name == "report.html"
    assert report.is_file()
    assert verdict == json.loads((report.parent / "verdict.json").read_text())
    assert done.returncode == verdict["exit_code"]
    assert verdict["blind"] == {"from_store": 0}


def test_the_stream_of_a_failed_run_ends_with_its_event(paper: Path) -> None:
    method = paper / "paper" / "method.py"
    method.write_text(
        method.read_text().replace("strength = random", "1 / 0\n    strength = random")
    )
    done = reproduce(paper)
    objects, path = stream(done.stdout)
    assert path == ""
    assert objects[-1]["event"] == "run-failed"
    assert done.returncode == errors.EXIT_FAILED
    assert "ZeroDivisionError" in done.stderr


def test_the_stream_of_an_unfit_machine_is_the_check_alone(paper: Path) -> None:
    shutil.rmtree(paper / "data")
    done = reproduce(paper)
    objects, path = stream(done.stdout)
    assert (done.returncode, path, len(objects)) == (errors.EXIT_INVALID, "", 1)
    assert objects[0]["can_run"] is False


def test_the_exit_codes_are_those_of_the_kit() -> None:
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    (sentence,) = re.findall(r"Exit codes: ([^.]+)\.", TEXT)
    assert {int(number) for number in re.findall(r"(?:^|; )(\d+)", sentence)} == codes


def test_a_failed_step_and_an_open_verdict_have_codes_of_their_own() -> None:
    from kit.verify.verdict import EXIT_CODES

    assert errors.StepFailed("it fell over").exit_code not in EXIT_CODES.values()


def test_the_files_of_a_run_have_their_names() -> None:
    from kit.results import files

    (sentence,) = re.findall(r"## Files\n\n(.+?The schemas)", TEXT, re.S)
    named = {name.removeprefix("RUN/") for name in re.findall(r"`(RUN/[^`]+)`", sentence)}
    values = {value for value in vars(files).values() if isinstance(value, str)}
    assert named <= values, named - values
