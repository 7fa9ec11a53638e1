"""``kit mini``: the miniature worlds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kit.errors import InvalidInput

if TYPE_CHECKING:
    from kit.mini.worlds import World


@click.group("mini")
def command() -> None:
    """The miniature worlds: make their models and data again."""


def _world(ctx: click.Context, parameter: click.Parameter, name: str) -> World:
    from kit.mini.worlds import get_world

    try:
        return get_world(name)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from None


_WORLD = click.argument("world", callback=_world)
_FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))


@command.command("build")
@_WORLD
@_FOLDER
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    help="Admitted seeds to make; by default as many as the world's own record has.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Seeds trained at the same time.",
)
def build_command(world: World, folder: Path, seeds: int | None, jobs: int) -> None:
    """Train the models of WORLD again from their seeds into FOLDER.

    Seeds 0, 1, 2, ... are tried until enough pass the entry rule (docs/mini-world.md); a build that
    was stopped continues. The same machine and versions give the same bits, others the same
    statistics. On a core, a seed takes about two and a half minutes ("injection") or one ("facts").
    """
    from kit.durable import make_home

    make_home(folder, next_step="name a folder you may write to")
    try:
        world.build(folder, seeds or world.wanted, jobs, click.echo)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    click.echo(str(folder))


@command.command("files")
@_WORLD
@_FOLDER
def files_command(world: World, folder: Path) -> None:
    """Write the data of WORLD into FOLDER, as the experiments read it."""
    from kit.durable import make_home, write_text

    make_home(folder, next_step="name a folder you may write to")
    for name, content in world.files().items():
        write_text(folder / name, content)
    click.echo(str(folder))
