"""``kit list``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from kit.cli.state import JSON, console, print_json, state

WIDE = 120
"""Columns that all of the table needs."""


@click.command("list")
@JSON
@click.option(
    "--register",
    type=click.Path(path_type=Path),
    help="Instead, the external kits that this file lists, each at its commit.",
)
def command(as_json: bool, register: Path | None) -> None:
    """List the experiments: id, family, variant, profiles, and which have recorded runs."""
    from kit.manifest.catalog import Catalog
    from kit.manifest.summary import summaries

    if register is not None:
        _external(register, as_json)
        return
    if as_json:
        print_json(summaries(Catalog()))
        return
    rows = [
        (
            item.id,
            item.family,
            item.variant or "-",
            ",".join(profile.profile for profile in item.profiles) or "-",
            ",".join(item.recorded) or "-",
            f"cannot be read: {item.problem}" if item.problem else item.title,
        )
        for item in summaries(Catalog(), expectations=False)
    ]
    _table(("experiment", "family", "variant", "profiles", "recorded", "title"), rows, spare=1)


def _external(file: Path, as_json: bool) -> None:
    """The kits of a register."""
    from kit.manifest.load import read_register

    kits = read_register(file).value.kits
    if as_json:
        print_json(kits)
        return
    if not kits:
        click.echo(f"no kits are listed in {file} yet")
        return
    rows = [(k.id, k.repository, k.commit, " ".join(k.experiments), k.title) for k in kits]
    _table(("kit", "repository", "commit", "experiments", "title"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], spare: int | None = None) -> None:
    """Rows under a head; all columns but the last stand in one piece.

    Args:
        head: Names of the columns.
        rows: Their texts.
        spare: The column that a narrow terminal can do without.
    """
    last = len(head) - 1
    if state().mode() == "plain":
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(last)]
        for row in [head, *rows]:
            cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
            click.echo("  ".join([*cells, row[last]]))
        return
    from rich.markup import escape
    from rich.table import Table

    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    shown = [column for column in range(len(head)) if column != spare or out.width >= WIDE]
    for column in shown:
        table.add_column(head[column], no_wrap=column < last, overflow="fold")
    for row in rows:
        table.add_row(*(escape(row[column]) for column in shown))
    out.print(table)
