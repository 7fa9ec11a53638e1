"""``kit export snakemake``: a plan for another engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from kit.cli.planning import GPU_ARCH, RUNS_DIR, plan_options, prepare


def this_program() -> str:
    """The ``kit`` that was called, so that another engine's jobs find it without an activated
    environment; the bare name when it was not called by a script of that name."""
    called = Path(sys.argv[0])
    return str(called.absolute()) if called.name == "kit" and called.is_file() else "kit"


@click.command("snakemake")
@plan_options
@GPU_ARCH
@RUNS_DIR
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder; by default called after the experiment.",
)
def snakemake(runs_dir: Path, output: Path | None, **planned: Any) -> None:
    """A Snakefile with the plan of EXPERIMENT: a rule a step, a job an instance.

    Its last rule makes the run directory and writes its path to run.txt.
    """
    from kit.engine.export.snakefile import write_snakemake

    made = prepare(**planned)
    folder = output or Path(f"{made.plan.experiment}-{made.plan.profile}-snakemake")
    written = write_snakemake(made.plan, folder, home=made.home, kit=this_program(), runs=runs_dir)
    click.echo(str(written))
