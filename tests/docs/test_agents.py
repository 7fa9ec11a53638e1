"""What AGENTS.md promises to programs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kit import errors
from kit.cli.main import run as kit

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
