"""``kit list``."""

from __future__ import annotations

import click
import msgspec

from kit.cli.state import console, state

WIDE = 120
"""Columns that all of the table needs."""


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(as_json: bool) -> None:
    """List the experiments: id, family, variant, profiles, and which have recorded runs."""
    from kit.manifest.catalog import Catalog
    from kit.manifest.summary import lines, summaries

    if as_json or state().mode() == "json":
        found = summaries(Catalog())
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    rows = [
        (
            item.id,
            item.family,
            item.variant or "-",
            ",".join(item.profiles) or "-",
            ",".join(item.recorded) or "-",
            f"cannot be read: {item.problem}" if item.problem else item.title,
        )
        for item in lines(Catalog())
    ]
    head = ("experiment", "family", "variant", "profiles", "recorded", "title")
    if state().mode() == "plain":
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(5)]
        for row in [head, *rows]:
            cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
            click.echo("  ".join([*cells, row[5]]))
        return
    from rich.markup import escape
    from rich.table import Table

    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    # What one types must stand in one piece; the family is what a narrow terminal can do without.
    shown = [column for column in range(6) if column != 1 or out.width >= WIDE]
    for column in shown:
        table.add_column(head[column], no_wrap=column < 5, overflow="fold")
    for row in rows:
        table.add_row(*(escape(row[column]) for column in shown))
    out.print(table)
