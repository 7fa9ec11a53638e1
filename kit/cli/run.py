"""``kit run``: run an experiment, or go on with it."""

from __future__ import annotations

from typing import Any

import click

from kit.cli.planning import chosen_options, plan_options, prepare, run_options


@click.command("run")
@plan_options
@run_options
def command(
    experiment: str,
    profile: str,
    seed: int | None,
    overrides: tuple[str, ...],
    gpus: int | None,
    **how: Any,
) -> None:
    """Run EXPERIMENT, or resume it: finished steps are taken from the store.

    The last line of standard output is the run directory. Exit code 5 means that a step failed,
    130 that the run was interrupted; in both cases the same command goes on where it stopped.
    """
    options = chosen_options(**how)
    prepared = prepare(experiment, profile, seed=seed, overrides=overrides, gpus=gpus)
    folder = prepared.session(options).run()
    click.echo(str(folder))
