"""``kit list``."""

from __future__ import annotations

import click
import msgspec

from kit.cli.state import console, state


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(as_json: bool) -> None:
    """List the experiments: id, family, variant, profiles, and which have recorded runs."""
    from kit.manifest.catalog import Catalog
    from kit.manifest.summary import summaries

    found = summaries(Catalog())
    if as_json or state().mode() == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
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
        for item in found
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

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(text) for text in row))
    console().print(table)
