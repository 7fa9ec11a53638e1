"""Every option of every command reaches its function; `--help` would not notice."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kit.cli.main import COMMANDS
from kit.cli.main import run as kit
from kit.errors import EXIT_OK

ROOT = Path(__file__).parents[2]


def commands() -> Iterator[tuple[str, click.Command]]:
    todo = [
        (name, importlib.import_module(module).command) for name, (module, _) in COMMANDS.items()
    ]
    while todo:
        name, command = todo.pop()
        if isinstance(command, click.Group):
            todo += [(f"{name} {part}", one) for part, one in command.commands.items()]
        yield name, command


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=lambda value: str(value))
def test_a_command_takes_its_options(name: str, command: click.Command) -> None:
    assert command.callback is not None
    taken = inspect.signature(command.callback, follow_wrapped=False).parameters
    if any(one.kind is one.VAR_KEYWORD for one in taken.values()):
        return
    given = {one.name for one in command.params if one.expose_value}
    assert given <= set(taken), f"kit {name}"


def test_an_export_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))
    out = tmp_path / "out"
    assert kit(["export", "snakemake", "dt-baselines", "-o", str(out)]) == EXIT_OK
    assert list(out.iterdir())
