"""Modules that register kinds: which are imported, and what is said of one that cannot be."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from kit.engine.registry import MODULES_VARIABLE, REGISTRY, load_registry
from kit.errors import InvalidInput


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with a step module, first in nobody's path."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(REGISTRY, "_kinds", dict(REGISTRY._kinds))
    (tmp_path / "pyproject.toml").write_text('[tool.kit]\nsteps = ["own_steps_of_theirs"]\n')
    (tmp_path / "own_steps_of_theirs.py").write_text(
        "from kit.engine.registry import REGISTRY, NoParams, StepKind\n"
        "REGISTRY.add(StepKind('own/step', 1, NoParams, print, {}, ()))\n"
    )
    monkeypatch.delitem(sys.modules, "own_steps_of_theirs", raising=False)
    yield tmp_path
    sys.modules.pop("own_steps_of_theirs", None)


def test_steps_of_a_folder_are_found_beside_its_pyproject(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last in the path, and once: what lies there is nobody else's library."""
    monkeypatch.setenv(MODULES_VARIABLE, f"tests.engine.toy, {own}")
    assert "own/step" not in REGISTRY.names()
    registry = load_registry()
    assert {"own/step", "toy/make"} <= {*registry.names()}
    assert sys.path[-1] == str(own)
    load_registry()
    assert sys.path.count(str(own)) == 1


def test_a_folder_without_steps_adds_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.other]\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv(MODULES_VARIABLE, f"{tmp_path}{os.sep},")
    before = REGISTRY.names()
    assert load_registry().names() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nobody_has_this", "ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_said_with_its_line(
    own: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    (own / "own_steps_of_theirs.py").write_text(f"x = 1\n{text}\n")
    monkeypatch.setenv(MODULES_VARIABLE, str(own))
    with pytest.raises(InvalidInput, match="'own_steps_of_theirs' cannot be imported") as caught:
        load_registry()
    assert said in caught.value.what
    where = "own_steps_of_theirs.py:2" if text != "def" else "pyproject.toml"
    assert where in caught.value.where


def test_errors_in_words_go_on_as_they_are(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "own_steps_of_theirs.py").write_text(
        "from kit.errors import UsageError\nraise UsageError('in words')\n"
    )
    monkeypatch.setenv(MODULES_VARIABLE, str(own))
    with pytest.raises(Exception, match="in words") as caught:
        load_registry()
    assert type(caught.value).__name__ == "UsageError"


def test_a_broken_module_of_the_kit_is_no_slip_of_the_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(MODULES_VARIABLE, "kit.no_such_room")
    with pytest.raises(ModuleNotFoundError):
        load_registry()
    monkeypatch.setenv(MODULES_VARIABLE, "no_such_module_of_anybody")
    with pytest.raises(InvalidInput) as caught:
        load_registry()
    assert caught.value.where == MODULES_VARIABLE
