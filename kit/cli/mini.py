"""``kit mini``: the miniature world."""

from __future__ import annotations

from pathlib import Path

import click

from kit.errors import InvalidInput


@click.group("mini")
def command() -> None:
    """The miniature world: make its models again."""


@command.command("build")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--pairs",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Admitted pairs of models to make.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Seeds trained at the same time.",
)
@click.option("--released/--no-released", default=True, help="Also train the released tokens.")
def build_command(folder: Path, pairs: int, jobs: int, released: bool) -> None:
    """Train every miniature model again from its seed into FOLDER.

    Seeds 0, 1, 2, ... are tried until enough pass the entry rule (docs/mini-world.md); a build that
    was stopped continues. The same machine and versions give the same bits, others the same
    statistics. About two minutes a source model and half a minute a newer version on one core.
    """
    from kit.engine.durable import make_home
    from kit.mini.build import build
    from kit.mini.record import read_record
    from kit.mini.release import release, write_released

    make_home(folder, next_step="name a folder you may write to")
    try:
        read_record(folder)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    build(folder, wanted=pairs, jobs=jobs, say=click.echo)
    if released:
        write_released(folder / "defensivetokens.json", release(folder))
    click.echo(str(folder))
