"""``kit rehearse``: does it fit, and how long will it take?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kit.cli.planning import chosen_options, prepare, run_options

if TYPE_CHECKING:
    from kit.engine.rehearse import PlanError, StepFinding


@click.command("rehearse")
@click.argument("experiment")
@click.option("--profile", help="Which profile; by default the first that needs a GPU.")
@click.option(
    "--fraction",
    type=click.FloatRange(min=0, max=1, min_open=True),
    help="Share of the steps or items, for kinds with such a parameter; measured times are of "
    "this share.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="AXIS=ID[,ID]",
    help="Rehearse these values of an axis alone.",
)
@click.option("--set", "overrides", multiple=True, metavar="STEP.PARAM=VALUE", help="As for run.")
@run_options
def command(
    experiment: str,
    profile: str | None,
    fraction: float | None,
    only: tuple[str, ...],
    overrides: tuple[str, ...],
    **how: Any,
) -> None:
    """Run EXPERIMENT at full shape with random weights and stand-in data.

    Where its published size is an experiment of its own, that is rehearsed. Steps that shard their
    work over GPUs do with as many as are here.

    Prints measured time and peak memory of each step against the plan; where a step fails, of those
    that were done. Nothing is reproduced by this: the verdict of a rehearsal is REHEARSED. The last
    line is the run directory.
    """
    from kit.engine.rehearse import REHEARSAL, write_rehearsal
    from kit.results.files import SUMS

    if profile is None:
        experiment, profile = _full_size(experiment)
    options = chosen_options(**how)
    prepared = prepare(
        experiment, profile, overrides=overrides, rehearsal=True, fraction=fraction, only=only
    )
    for note in prepared.plan.notes:
        click.echo(f"note: {note}")
    session = prepared.session(options)
    try:
        session.run()
    finally:
        folder = session.folder
        if (folder / SUMS).is_file():  # it was closed, however it ended
            made = write_rehearsal(prepared.plan, folder, fraction)
            show(made.steps)
            click.echo(describe(made.plan_error))
            click.echo(f"written to {folder / REHEARSAL}")
            click.echo(str(folder))


def describe(error: PlanError) -> str:
    """The plan's error in one line."""
    time = "not measured" if error.minutes is None else f"{error.minutes:.0%} of the time"
    if error.gpu_memory is None:
        return f"plan error: {time}; no step used a GPU"
    return (
        f"plan error: {time}; GPU memory at most {error.gpu_memory:.0%} ({error.gpu_memory_step})"
    )


def show(steps: list[StepFinding]) -> None:
    """Print the comparison as a table."""
    from rich.table import Table
    from rich.text import Text

    from kit.cli.state import console

    table = Table("step", box=None, pad_edge=False)
    for title in ("instances", "minutes", "planned", "memory GB", "planned", "GPU GB", "planned"):
        table.add_column(title, justify="right")
    table.add_column("over plan")
    for step in steps:
        minutes = "-" if step.measured_minutes is None else f"{step.measured_minutes:.2f}"
        table.add_row(
            Text(step.step),
            str(step.instances),
            minutes,
            f"{step.planned_minutes:.2f}",
            f"{step.peak_memory_gb:.2f}",
            f"{step.planned_memory_gb:.2f}",
            f"{step.peak_gpu_memory_gb:.2f}",
            f"{step.planned_gpu_memory_gb:.2f}",
            ", ".join(step.over),
        )
    console().print(table)


def _full_size(experiment: str) -> tuple[str, str]:
    """The experiment at its published size, and its first profile that needs a GPU."""
    from kit.errors import UsageError
    from kit.manifest.catalog import Catalog

    manifest = Catalog().manifest(experiment)
    for name, profile in manifest.profiles.items():
        if profile.gpu:
            return experiment, name
    if manifest.full_size is not None:
        return _full_size(manifest.full_size)
    raise UsageError(
        f"no profile of {experiment} needs a GPU, so there is nothing to rehearse",
        next_step=f"name one all the same: --profile {next(iter(manifest.profiles))}",
    )
