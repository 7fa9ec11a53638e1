"""``kit sweep``: run an experiment that searches attack settings, with so many attacks a search."""

from __future__ import annotations

from typing import Any

import click

from kit.cli.planning import chosen, plan_options, prepare, run_options


@click.command("sweep")
@plan_options
@run_options
@click.option(
    "--trials",
    type=click.IntRange(1, 100_000),
    help="Attacks of each search; as many as the manifest says without. The first attacks of a "
    "longer search are those of a shorter one, so it goes on where that ended.",
)
def command(**given: Any) -> None:
    """Draw attacks at random on every model of EXPERIMENT and report the worst of each search.

    The experiment has an axis called trial. An attack counts where the model stays useful; one half
    of the questions chooses the worst, the other half measures it. The last line of standard output
    is the run directory.
    """
    from kit.errors import UsageError

    planned, options = chosen(given)
    prepared = prepare(**planned)
    if not any("trial" in instance.axes for instance in prepared.plan.instances):
        raise UsageError(
            "nothing is searched: the profile has no axis 'trial'",
            next_step="kit sweep tar-worst-case has it; kit run runs this experiment as it is",
        )
    folder = prepared.session(options).run()
    click.echo(str(folder))
