"""``kit run``: run an experiment, or go on with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kit.cli.planning import plan_options, prepare, run_options, run_prepared

if TYPE_CHECKING:
    from kit.engine.slurm.options import SlurmOptions


@click.command("run")
@plan_options
@run_options
def command(
    experiment: str,
    profile: str,
    seed: int | None,
    overrides: tuple[str, ...],
    gpus: int | None,
    jobs: int | None,
    threads: int,
    runs_dir: Path,
    check: bool,
    keep_going: bool,
    keep_intermediate: bool,
    slurm: SlurmOptions | None,
) -> None:
    """Run EXPERIMENT, or resume it: finished steps are taken from the store.

    The last line of standard output is the run directory. Exit code 3 means that a step failed,
    130 that the run was interrupted; in both cases the same command goes on where it stopped.
    """
    prepared = prepare(experiment, profile, seed=seed, overrides=overrides, gpus=gpus)
    folder = run_prepared(
        prepared,
        jobs=jobs,
        threads=threads,
        runs_dir=runs_dir,
        check=check,
        keep_going=keep_going,
        keep_intermediate=keep_intermediate,
        slurm=slurm,
    )
    click.echo(str(folder))
