"""``kit log``: the reproduction log."""

from __future__ import annotations

from pathlib import Path

import click


@click.group(name="log")
def command() -> None:
    """The reproduction log: who got what, on which hardware."""


_folder = click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Folder of the log.  [default: reproductions/ of the repository; beside a manifest of "
    "your own]",
)


@command.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--name", default="", help="Your name, if you want it in the log.")
@click.option("--hardware", default="", help="Instead of what the run recorded.")
@_folder
def add(run: Path, name: str, hardware: str, folder: Path | None) -> None:
    """Add the verified run directory RUN to the log.

    The entry holds verdict, hardware, versions, the day and the sha256 of verdict.json; a name only
    with --name. Nothing is sent anywhere: commit the file and open a pull request.
    """
    from kit.report import log
    from kit.report.files import read_run

    made = read_run(run)
    own = Path(made.manifest).parent / log.FOLDER if made.manifest else None
    click.echo(str(log.add(made, folder or own or _here(), name=name, hardware=hardware)))


@command.command()
@_folder
def show(folder: Path | None) -> None:
    """Print the log, which entries are pooled and why others are not, and what they say together.

    Markdown, the same as docs/reproductions.md has after `kit docs`.
    """
    from kit.report.pooled import page

    click.echo(page(folder or _here()), nl=False)


def _here() -> Path:
    """The log of the current folder, where there is a log, else of the repository."""
    from kit.manifest.home import writable_root
    from kit.report.log import FOLDER

    return Path(FOLDER) if Path(FOLDER).is_dir() else writable_root() / FOLDER
