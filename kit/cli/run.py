"""``kit run``: run an experiment, or go on with it."""

from __future__ import annotations

from typing import Any

import click

from kit.cli.planning import chosen, plan_options, prepare, run_options


@click.command("run")
@plan_options
@run_options
def command(**given: Any) -> None:
    """Run EXPERIMENT, or resume it: finished steps are taken from the store.

    The last line of standard output is the run directory. Exit code 5 means that a step failed,
    130 that the run was interrupted; in both cases the same command goes on where it stopped.
    """
    planned, options = chosen(given)
    folder = prepare(**planned).session(options).run()
    click.echo(str(folder))
