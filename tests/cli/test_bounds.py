"""Numbers that an option takes: the least that means something, and nothing below."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import click
import pytest

from kit.cli.main import COMMANDS

LEAST = {
    "--jobs": ("1", "0"), "--threads": ("1", "0"), "--max-jobs": ("1", "0"),
    "--nodes": ("1", "0"), "--trials": ("1", "0"), "--gpus": ("1", "0"), "--seed": ("0", "-1"),
    "--older-than": ("0", "-1"), "--node-rank": ("0", "-1"), "--seeds": ("1", "0"),
    "--gpu-memory": ("1", "0.5"), "--fraction": ("0.01", "0"),
}  # fmt: skip
MOST = {"--fraction": ("1", "1.01"), "--seed": (str(2**31 - 1), str(2**31)),
        "--trials": ("100000", "100001")}  # fmt: skip


def every() -> Iterator[click.Option]:
    """Options of all commands and of what is below them."""
    for module, _ in COMMANDS.values():
        command: click.Command = importlib.import_module(module).command
        below = command.commands.values() if isinstance(command, click.Group) else ()
        for each in (command, *below):
            known = (one for one in each.params if isinstance(one, click.Option))
            yield from (one for one in known if not one.hidden)  # what all of them take


def options() -> dict[str, list[click.Option]]:
    """Bounded options of all commands, by name."""
    made: dict[str, list[click.Option]] = {}
    for each in every():
        if isinstance(each.type, click.IntRange | click.FloatRange):
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


FLAGS = {
    "--all", "--blind", "--check", "--dry-run", "--explain", "--fresh", "--json", "--keep-going",
    "--keep-intermediate", "--labels", "--quiet", "--selftest", "--show-generations", "--template",
    "--write-pins",
}  # fmt: skip
REPEATED = {"--cells", "--only", "--pin", "--profile", "--set", "--slurm", "--store"}
NEEDED = {"--url", "-o"}


@pytest.mark.parametrize(
    ("attribute", "names"), [("is_flag", FLAGS), ("multiple", REPEATED), ("required", NEEDED)]
)
def test_what_takes_no_value_several_or_must_be_given(attribute: str, names: set[str]) -> None:
    assert {one.opts[0] for one in every() if getattr(one, attribute)} == names


def test_help_says_what_a_setting_is_when_nobody_names_it() -> None:
    for one in every():
        plain = isinstance(one.default, str | int | float) and not one.is_flag
        if plain and one.default != "" and one.opts[0] != "--nodes":  # with 1 nothing is said
            assert one.show_default or str(one.default) in (one.help or ""), one.opts
