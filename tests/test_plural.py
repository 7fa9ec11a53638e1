"""No message says "1 steps": counts of things that are listed go through one helper."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from kit.plural import plural

KIT = Path(__file__).resolve().parents[1] / "kit"
ROOMS = ("cli", "doctor", "engine", "lint", "manifest", "pins", "report", "results", "verify")
VERBS = {"is", "was", "has", "as"}
FILES = [
    path
    for room in ROOMS
    for path in sorted((KIT / room).rglob("*.py"))
    if "template" not in path.parts  # it is a reader's, and imports no helper of the kit
]


def slips(text: str) -> list[str]:
    """f-strings with a bare ``{len(...)}`` before a plural noun, and nouns with ``(s)``.

    "3 of {len(...)} steps" is a part of a set, which is always named in the plural.
    """
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.JoinedStr):
            continue
        before = ""
        for part, after in zip(node.values, [*node.values[1:], ast.Constant("")], strict=True):
            said = after.value if isinstance(after, ast.Constant) else ""
            bare = isinstance(part, ast.FormattedValue) and _counts(part.value)
            noun = re.match(r" (?!of )(?:[a-z-]+ )?([a-z]+s)\b", str(said))
            if bare and noun and noun[1] not in VERBS and not before.endswith(("of ", "Of ")):
                found.append(ast.unparse(node))
            if isinstance(part, ast.FormattedValue) and re.match(r" \w+\(s\)", str(said)):
                found.append(ast.unparse(node))
            before = str(part.value) if isinstance(part, ast.Constant) else ""
    return found


def _counts(value: ast.expr) -> bool:
    """Whether it is a call of ``len`` or of ``.count``."""
    if not isinstance(value, ast.Call):
        return False
    called = value.func
    return getattr(called, "id", getattr(called, "attr", "")) in ("len", "count")


def test_counts_agree_with_their_nouns() -> None:
    assert len(FILES) > 150
    assert [slip for path in FILES for slip in slips(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    "slip",
    [
        "f'{len(a)} steps'",
        "f'{len(a)} finished steps are old'",
        "f'{a.count(1)} errors'",
        "f'{n} GPU(s)'",
    ],
)
def test_a_slip_is_seen(slip: str) -> None:
    assert slips(slip) == [slip]


@pytest.mark.parametrize(
    "good", ["f'1 of {len(a)} steps'", "f'{len(a)} is it'", "f'{plural(len(a), \"step\")} left'"]
)
def test_what_is_right_is_left_alone(good: str) -> None:
    assert slips(good) == []


def test_the_helper() -> None:
    assert plural(1, "cell") == "1 cell"
    assert plural(0, "cell") == "0 cells"
    assert plural(12000, "entry", "entries") == "12,000 entries"
