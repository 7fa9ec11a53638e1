"""``kit reference``: reference blocks of an expectation from runs of this kit."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="reference")
@click.argument("experiment", metavar="EXP")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
def command(experiment: str, runs: tuple[Path, ...]) -> None:
    """Rewrite the reference blocks of EXP's expectation from finished runs.

    The seeds of all runs are put together; a seed that occurs twice is refused. Nothing else in the
    file changes. A compact record of the runs is kept below expected_results/reference, or
    beside the expectation of a manifest of your own.
    """
    from kit.errors import UsageError
    from kit.manifest.catalog import Catalog
    from kit.manifest.load import load_expectation
    from kit.results.run import open_run
    from kit.verify.reference import update

    catalog = Catalog()
    found = [open_run(path) for path in runs]
    profiles = {run.results.profile for run in found}
    if len(profiles) != 1:
        raise UsageError(f"the runs have profiles {', '.join(sorted(profiles))}")
    path = catalog.expectation_path(experiment, profiles.pop())
    if path is None:
        raise UsageError(f"{experiment} has no expectation at this profile")
    record, cells = update(path, load_expectation(path), found, catalog.root)
    click.echo(f"{catalog.relative(path)}: {cells} reference blocks from {len(found)} runs")
    click.echo(catalog.relative(record))
