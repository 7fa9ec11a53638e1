"""``kit sweep``: run an experiment that searches attack settings, with so many attacks a search."""

from __future__ import annotations

from typing import Any

import click

from kit.cli.planning import chosen_options, plan_options, prepare, run_options


@click.command("sweep")
@plan_options
@run_options
@click.option(
    "--trials",
    type=click.IntRange(1, 100_000),
    help="Attacks of each search; as many as the manifest says without. The first attacks of a "
    "longer search are those of a shorter one, so it goes on where that ended.",
)
def command(
    experiment: str,
    profile: str,
    seed: int | None,
    overrides: tuple[str, ...],
    gpus: int | None,
    trials: int | None,
    **how: Any,
) -> None:
    """Draw attacks at random on every model of EXPERIMENT and report the worst of each search.

    The experiment has an axis called trial. An attack counts where the model stays useful; one half
    of the questions chooses the worst, the other half measures it. The last line of standard output
    is the run directory.
    """
    options = chosen_options(**how)
    prepared = prepare(
        experiment, profile, seed=seed, overrides=overrides, gpus=gpus, trials=trials
    )
    folder = prepared.session(options).run()
    click.echo(str(folder))
