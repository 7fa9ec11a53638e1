"""What every command knows about how it was called, and how it answers."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

if TYPE_CHECKING:
    from rich.console import Console

ProgressMode = Literal["rich", "plain", "json"]


@dataclass
class State:
    """Options that stand before or after the command name."""

    progress: ProgressMode | None = None
    """As asked for; ``None`` lets the terminal decide."""
    debug: bool = False

    def mode(self) -> ProgressMode:
        """``rich`` on a terminal, ``plain`` otherwise, unless asked for."""
        if self.progress is not None:
            return self.progress
        dumb = os.environ.get("TERM", "") == "dumb"
        return "rich" if sys.stdout.isatty() and not dumb else "plain"


def state(context: click.Context | None = None) -> State:
    """The state of the running command."""
    context = context or click.get_current_context()
    state = context.find_object(State)
    return state if state is not None else State()


def console() -> Console:
    """A rich console for stdout that honours ``--progress plain`` and ``NO_COLOR``.

    Off a terminal it writes no colours and wraps nothing, so that lines stay greppable.
    """
    from rich.console import Console

    # emoji=False: "x.yaml:100:5" would otherwise show a picture in place of ":100:".
    if state().mode() == "rich":
        return Console(highlight=False, emoji=False)
    return Console(highlight=False, emoji=False, force_terminal=False, width=10_000)


def _json(context: click.Context, _: click.Parameter, asked: bool) -> bool:
    return asked or state(context).mode() == "json"


JSON = click.option(
    "--json", "as_json", is_flag=True, callback=_json, help="One JSON document on stdout."
)
"""Also asked for by ``--progress json``."""


def print_json(value: Any) -> None:
    """One JSON document on stdout; on one line where lines are what programs read."""
    import msgspec

    line = state().mode() == "json"
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=-1 if line else 2).decode())


def print_or_write(text: str, file: Path | None) -> None:
    """Text to ``file``, whose path is printed; to stdout if there is none."""
    from kit.report.files import write_file

    if file is None:
        click.echo(text, nl=False)
    else:
        write_file(file, text)
        click.echo(str(file))


def _set_progress(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(State).progress = cast(ProgressMode, value)


def _set_debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(State).debug = True


def common_options(*, hidden: bool) -> list[click.Parameter]:
    """``--progress`` and ``--debug``, for the group and (hidden) for each of its commands."""
    return [
        click.Option(
            ["--progress"],
            type=click.Choice(["rich", "plain", "json"]),
            help="rich: live; plain: a line an event; json: an object an event. "
            "Default: rich on a terminal, else plain.",
            envvar=None if hidden else "KIT_PROGRESS",
            callback=_set_progress,
            expose_value=False,
            hidden=hidden,
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            help="Show the traceback of an unexpected error, or of a failed step.",
            callback=_set_debug,
            expose_value=False,
            hidden=hidden,
        ),
    ]
