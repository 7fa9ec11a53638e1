"""``kit reference``: the record of reference runs that an expectation's values come from."""

from __future__ import annotations

from pathlib import Path

import click

from kit.plural import plural


@click.command(name="reference")
@click.argument("experiment", metavar="EXP")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
def command(experiment: str, runs: tuple[Path, ...]) -> None:
    """Make finished runs the reference values of EXP's expectation.

    The seeds of all runs are put together; a seed that occurs twice is refused. What is written is
    the compact record of the runs that the expectation names: below expected_results/reference,
    or beside the expectation of a manifest of your own.
    """
    from kit.errors import UsageError
    from kit.manifest.catalog import Catalog
    from kit.manifest.home import writable_root
    from kit.manifest.load import read_expectation
    from kit.results.run import open_run
    from kit.verify.reference import update

    catalog = Catalog()
    opened = [open_run(path) for path in runs]
    profiles = {run.results.profile for run in opened}
    if len(profiles) != 1:
        raise UsageError(f"the runs have profiles {', '.join(sorted(profiles))}")
    path = catalog.expectation_path(experiment, profiles.pop())
    if path is None:
        raise UsageError(f"{experiment} has no expectation at this profile")
    if catalog.own_path(experiment) is None:
        writable_root()
    record, cells = update(
        path, read_expectation(path, references=False).value, opened, catalog.root
    )
    said = f"{plural(cells, 'cell')} with values of {plural(len(runs), 'run')}"
    click.echo(f"{catalog.relative(path)}: {said}")
    click.echo(catalog.relative(record))
