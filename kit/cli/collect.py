"""``kit collect``: the run directory of a plan that another engine has run."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("collect")
@click.argument("plan", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--events",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder below which 'kit step --events' left events and logs; they are brought along.",
)
@click.option(
    "--runs-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where the run directory is made.",
)
@click.option("--check", is_flag=True, help="Hash all finished outputs, large ones too.")
def command(plan: Path, events: Path | None, runs_dir: Path, check: bool) -> None:
    """Write the run directory of the plan file PLAN, all of whose steps are finished.

    Nothing is run: exit code 5 means that steps are missing, and names them. The last line of
    standard output is the run directory, for 'kit verify' and 'kit report'.
    """
    import sys

    from kit.cli.state import state
    from kit.engine.session import Options, collect
    from kit.manifest.home import kit_home, open_folder
    from kit.pins.store import PinStore
    from kit.results.plan import read_plan

    made, home = read_plan(plan), kit_home()
    if made.manifest:
        open_folder(Path(made.manifest))
    options = Options(check="all" if check else "small", progress=state().mode(), runs_dir=runs_dir)
    folder = collect(
        made,
        home=home,
        pins=PinStore(home, made.pins),
        options=options,
        argv=sys.argv,
        events=events,
    )
    click.echo(str(folder))
