"""The tutorial, followed from top to bottom outside of the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kit.manifest.load import read_expectation
from kit.results.types import Results

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
STEPS = (ROOT / "docs" / "steps.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (.+?)(?: +# exit (\d))?$", PAGE, re.MULTILINE)


@pytest.fixture
def shell(tmp_path: Path) -> subprocess.Popen[str]:
    """A shell with ``kit`` on its path, in an empty folder."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "kit"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kit.cli.main "$@"\n')
    script.chmod(0o755)
    (tmp_path / "bin" / "pytest").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pytest "$@"\n')
    (tmp_path / "bin" / "pytest").chmod(0o755)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("KIT_")}
    environ |= {"PATH": f"{script.parent}:{environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        ["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, cwd=tmp_path, env=environ,
    )  # fmt: skip


def test_every_command_does_what_the_page_says(
    shell: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert len(COMMANDS) >= 9
    # What a reader tries next must not meet the results of the changed method again.
    afterwards = [
        ("KIT_HOME=$PWD/.kit pytest -q -p no:cacheprovider", ""),
        ("kit reproduce ./my-paper.yaml", ""),
    ]
    script = "".join(
        f"echo '$ {command}' | head -c 60; {command}; "
        f"code=$?; [ $code = {code or 0} ] || {{ echo WRONG $code; exit 1; }}\n"
        for command, code in [*COMMANDS, *afterwards]
    )
    said, _ = shell.communicate(script, timeout=300)
    assert "WRONG" not in said, said[-3000:]
    assert shell.returncode == 0
    assert "REPRODUCED at stand-in scale (1 of 1 primary claims)" in " ".join(
        said.replace(" (modified)", "").split()
    )
    assert (tmp_path / "my-paper" / "my-paper.laptop.reference.jsonl").is_file()


def test_the_template_passes_its_own_test(shell: subprocess.Popen[str], tmp_path: Path) -> None:
    said, _ = shell.communicate(
        f"kit new a-2nd_paper && cd a-2nd_paper && {sys.executable} -W ignore -m pytest -q -p "
        "no:cacheprovider\n",
        timeout=300,
    )
    assert shell.returncode == 0, said[-3000:]
    assert "4 passed" in said
    assert (tmp_path / "a-2nd_paper" / "a_2nd_paper" / "method.py").is_file()
    left = [p for p in (tmp_path / "a-2nd_paper").rglob("*.py") if "my_paper" in p.read_text()]
    assert left == []


def test_the_examples_of_the_page_about_steps_are_what_they_say(tmp_path: Path) -> None:
    (results,) = re.findall(r"```json\n(.*?)```", STEPS, re.DOTALL)
    assert msgspec.json.decode(results, type=Results, strict=True).cells[0].seeds[1].k == 6
    (text,) = re.findall(r"```yaml\n(.*?)```", STEPS, re.DOTALL)
    file = tmp_path / "my-paper.laptop.expected.yaml"
    file.write_text(text)
    assert read_expectation(file, full=True).value.claims[0].primary
