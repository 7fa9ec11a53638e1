"""``kit docs``."""

from __future__ import annotations

import click

from kit.errors import EXIT_INVALID, EXIT_OK


@click.command("docs")
@click.option("--check", is_flag=True, help="Change nothing; leave with 4 if something is stale.")
def command(check: bool) -> int:
    """Regenerate schema files and the generated blocks of the documents."""
    from kit.manifest import docs
    from kit.manifest.home import writable_root

    root = writable_root()
    changes = docs.drift(root) if check else docs.write(root)
    word = "stale" if check else "written"
    for change in changes:
        click.echo(f"{word}: {change.path.relative_to(root)} ({', '.join(change.parts)})")
    if not changes:
        click.echo("everything generated is up to date")
    if check and changes:
        click.echo("run: kit docs", err=True)
        return EXIT_INVALID
    return EXIT_OK
