"""``kit collect``: the run directory of a plan that another engine has run."""

from __future__ import annotations

from pathlib import Path

import click

from kit.cli.planning import RUNS_DIR, read_planned


@click.command("collect")
@click.argument("plan", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--events",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder below which 'kit step --events' left events and logs; they are brought along.",
)
@RUNS_DIR
@click.option("--check", is_flag=True, help="Hash all finished outputs, large ones too.")
def command(plan: Path, events: Path | None, runs_dir: Path, check: bool) -> None:
    """Write the run directory of the plan file PLAN, all of whose steps are finished.

    Nothing is run: exit code 5 means that steps are missing, and names them. The last line of
    standard output is the run directory, for 'kit verify' and 'kit report'.
    """
    import sys

    from kit.cli.state import state
    from kit.engine.session import Options, collect

    prepared = read_planned(plan)
    options = Options(check="all" if check else "small", progress=state().mode(), runs_dir=runs_dir)
    folder = collect(
        prepared.plan,
        home=prepared.home,
        pins=prepared.pins,
        options=options,
        argv=sys.argv,
        events=events,
    )
    click.echo(str(folder))
