"""``kit export snakemake``: a plan for another engine."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kit.cli.planning import GPU_ARCH, plan_options, prepare


def this_program() -> str:
    """The ``kit`` that was called, so that another engine's jobs find it without an activated
    environment; the bare name when it was not called by a script of that name."""
    called = Path(sys.argv[0])
    return str(called.absolute()) if called.name == "kit" and called.is_file() else "kit"


@click.command("snakemake")
@plan_options
@GPU_ARCH
@click.option(
    "--runs-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where the last rule makes the run directory.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder; by default called after the experiment.",
)
def snakemake(
    experiment: str,
    profile: str,
    seed: int | None,
    overrides: tuple[str, ...],
    gpus: int | None,
    gpu_arch: str | None,
    runs_dir: Path,
    output: Path | None,
) -> None:
    """A Snakefile with the plan of EXPERIMENT: a rule a step, a job an instance.

    Its last rule makes the run directory and writes its path to run.txt.
    """
    from kit.engine.export.snakefile import write_snakemake

    made = prepare(
        experiment, profile, seed=seed, overrides=overrides, gpu_arch=gpu_arch, gpus=gpus
    )
    folder = output or Path(f"{made.plan.experiment}-{profile}-snakemake")
    written = write_snakemake(made.plan, folder, home=made.home, kit=this_program(), runs=runs_dir)
    click.echo(str(written))
