"""The scripts a reviewer runs keep to what macOS has: bash 3.2."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "requirements").glob("*.sh"))
NEWER = r"\$\{\w+(,|\^)|\b(mapfile|readarray|coproc)\b|declare -[An]|local -[An]|&>>|\|&|\$\{\w+@"
"""Case conversion, associative arrays and the like: bash 4."""
LINUX = r"readlink -f|realpath|sed -i|stat -c|date -d|xargs -r|grep -P|timeout "
"""Options and programs that BSD's userland lacks."""


def code(script: Path) -> str:
    lines = script.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_nothing_of_a_newer_bash_or_of_linux_alone(script: Path) -> None:
    assert re.findall(NEWER, code(script)) == []
    assert re.findall(LINUX, code(script)) == []
    # Under -e, bash 3.2 ends the script even at `command x || ...`; `command -v` alone is harmless.
    assert re.findall(r"\bcommand (?!-v)", code(script)) == []


def unguarded(text: str) -> set[str]:
    """Arrays that begin empty and are expanded as if they never were.

    Under -u, bash before 4.4 says "unbound variable" for ``"${x[@]}"`` of an empty x.
    """
    empty = set(re.findall(r"\b(\w+)=\(\)", text))
    return {
        name
        for name in empty
        if f'"${{{name}[@]}}"' in text.replace(f'${{{name}[@]+"${{{name}[@]}}"}}', "")
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_an_array_that_may_be_empty_does_not_count_as_unset(script: Path) -> None:
    text = code(script)
    assert unguarded(text) == set()
    assert unguarded(text + '\nx=()\nrun "${x[@]}"\n') == {"x"}
    assert unguarded(text + '\nx=()\nrun ${x[@]+"${x[@]}"}\n') == set()
