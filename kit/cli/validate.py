"""``kit validate``."""

from __future__ import annotations

from pathlib import Path

import click

from kit.cli.state import JSON, console, print_json
from kit.errors import EXIT_INVALID, EXIT_OK
from kit.plural import plural

_STYLE = {"error": "red", "warning": "yellow", "info": "dim"}


@click.command("validate")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@JSON
@click.option("--quiet", "-q", is_flag=True, help="Errors and warnings only.")
def command(paths: tuple[Path, ...], as_json: bool, quiet: bool) -> int:
    """Check manifests, pins and expectations: schema and lint.

    PATHS default to everything in the repository; of a folder every manifest, pin file and
    expectation in it is meant. Every problem is shown as
    file:line:column; errors make the command leave with 4.
    """
    from kit.lint.validate import named_files, repository_files, validate
    from kit.manifest.catalog import Catalog

    catalog = Catalog()
    chosen = named_files(paths) or repository_files(catalog)
    findings = validate(catalog, chosen)
    levels = [finding.level for finding in findings]
    shown = [f for f in findings if not (quiet and f.level == "info")]
    if as_json:
        print_json(shown)
    else:
        out = console()
        for finding in shown:
            out.print(finding.render(), style=_STYLE[finding.level], markup=False, soft_wrap=True)
        click.echo(
            f"{plural(len(chosen), 'file')}: {plural(levels.count('error'), 'error')}, "
            f"{plural(levels.count('warning'), 'warning')}, {plural(levels.count('info'), 'note')}"
        )
    return EXIT_INVALID if "error" in levels else EXIT_OK
