"""``kit new``: a folder for a paper of one's own, which runs as it is."""

from __future__ import annotations

from pathlib import Path

import click

TEMPLATE = "my-paper"


@click.command("new")
@click.argument("folder", type=click.Path(path_type=Path))
def command(folder: Path) -> None:
    """Write a running template into FOLDER: package, manifest, pins, expectation, a test.

    The folder's name becomes the name of the experiment; docs/tutorial.md walks through it.
    """
    from importlib import resources
    from re import fullmatch

    from kit.durable import write_text
    from kit.errors import UsageError

    name = folder.resolve().name.lower().replace("_", "-")
    if not fullmatch(r"[a-z][a-z0-9-]{0,40}", name):
        raise UsageError(
            f"{folder.name!r} cannot name an experiment",
            next_step="call the folder by letters, digits and hyphens, a letter first",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already", next_step="name a folder that is not")

    def named(text: str) -> str:
        return text.replace(TEMPLATE, name).replace("my_paper", name.replace("-", "_"))

    source = Path(str(resources.files("kit.cli") / "template"))
    for path in sorted(source.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            made = folder / named(path.relative_to(source).as_posix())
            write_text(made, named(path.read_text(encoding="utf-8")))
            click.echo(str(made))
    click.echo(f"next: cd {folder} && kit reproduce ./{name}.yaml")
