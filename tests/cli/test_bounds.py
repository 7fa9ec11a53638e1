"""Numbers that an option takes: the least that means something, and nothing below."""

from __future__ import annotations

import importlib

import click
import pytest

from kit.cli.main import COMMANDS

LEAST = {
    "--jobs": ("1", "0"), "--threads": ("1", "0"), "--max-jobs": ("1", "0"),
    "--nodes": ("1", "0"), "--trials": ("1", "0"), "--gpus": ("1", "0"), "--seed": ("0", "-1"),
    "--older-than": ("0", "-1"), "--node-rank": ("0", "-1"), "--seeds": ("1", "0"), "--gpu-memory": ("1", "0.5"), "--fraction": ("0.01", "0"),
}  # fmt: skip
MOST = {"--fraction": ("1", "1.01"), "--seed": (str(2**31 - 1), str(2**31)),
        "--trials": ("100000", "100001")}  # fmt: skip


def options() -> dict[str, list[click.Option]]:
    """Bounded options of all commands, by name."""
    made: dict[str, list[click.Option]] = {}
    commands: list[click.Command] = []
    for module, _ in COMMANDS.values():
        command: click.Command = importlib.import_module(module).command
        commands += [
            command,
            *(command.commands.values() if isinstance(command, click.Group) else ()),
        ]
    for command in commands:
        for each in command.params:
            if isinstance(each, click.Option) and isinstance(
                each.type, click.IntRange | click.FloatRange
            ):
                made.setdefault(each.opts[0], []).append(each)
    return made


def taken(option: click.Option, text: str) -> bool:
    try:
        option.type.convert(text, option, None)
    except click.BadParameter:
        return False
    return True


@pytest.mark.parametrize("name", LEAST)
def test_the_least_is_taken_and_less_is_not(name: str) -> None:
    known = options()[name]
    for bounds in filter(None, (LEAST[name], MOST.get(name))):
        for option in known:
            assert [taken(option, text) for text in bounds] == [True, False], bounds


def test_every_bounded_option_is_looked_at() -> None:
    assert options().keys() == LEAST.keys()
