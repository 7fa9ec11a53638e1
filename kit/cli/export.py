"""``kit export``: a run or an experiment in other people's formats."""

from __future__ import annotations

from pathlib import Path

import click

from kit.cli.export_plan import snakemake
from kit.cli.state import print_or_write
from kit.errors import UsageError


@click.group(name="export")
def command() -> None:
    """Write a run or an experiment in a format that others read."""


@command.command()
@click.argument("subject", metavar="RUN|EXP")
@click.option("--profile", default="mini", show_default=True, help="Profile, with EXP.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File; printed if absent.")
def appendix(subject: str, profile: str, output: Path | None) -> None:
    """The two-page artifact appendix (Markdown).

    For a run directory with measured times and outcomes, for an experiment with declared ones.
    """
    from kit.report import appendix as pages
    from kit.report.files import read_run
    from kit.report.session import manifest_of

    if Path(subject).is_dir():
        run = read_run(Path(subject))
        text = pages.of_run(run, manifest_of(run))
    else:
        from kit.manifest.catalog import Catalog
        from kit.manifest.types import profile_of

        catalog = Catalog()
        manifest = catalog.manifest(subject)
        profile_of(manifest, profile)
        needed = set(catalog.needed_pins(subject, profile))
        pins = [pin for pin in catalog.pins(subject).pins if pin.id in needed]
        expectation = catalog.expectation(subject, profile)
        text = pages.of_experiment(manifest, profile, expectation, pins)
    print_or_write(text, output)


@command.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The zip file."
)
@click.option("--agent", default="", help="Who ran it; not stated if absent.")
@click.option("--licence", default="", help="Licence of the outputs: an address or a name.")
def crate(run: Path, output: Path, agent: str, licence: str) -> None:
    """A Process Run Crate (RO-Crate zip), as archives read it.

    Every step stands in it with what it used and what it left. Responses of models stay out.
    """
    from kit.report.crate import export_crate
    from kit.report.files import read_run

    click.echo(str(export_crate(read_run(run), output, agent=agent, licence=licence)))


@command.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "latex"]),
    default="csv",
    show_default=True,
    help="csv: a line a number and replicate; latex: a line a cell.",
)
@click.option(
    "--cells", multiple=True, metavar="PREFIX", help="Only ids that begin so; repeatable."
)
@click.option("--labels", is_flag=True, help="With csv: the 0 and 1 of every item, too.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File; printed if absent.")
def table(run: Path, form: str, cells: tuple[str, ...], labels: bool, output: Path | None) -> None:
    """The numbers of a run, verified or not.

    A run of a manifest of your own needs no expectation for this. The columns are those of
    `kit show EXP --template`.
    """
    from kit.report.run_table import read_cells, to_csv, to_latex
    from kit.results.labels import LabelFiles

    if labels and form != "csv":
        raise UsageError("--labels goes with --format csv", next_step="leave one of them out")
    table = read_cells(run, cells)
    text = (
        to_latex(table) if form == "latex" else to_csv(table, LabelFiles(run) if labels else None)
    )
    print_or_write(text, output)


@command.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of the records."
)
@click.option(
    "--organization", default="independent reproduction", show_default=True, help="Who ran it."
)
def eee(run: Path, output: Path, organization: str) -> None:
    """Records of Every Eval Ever, a row of the table each, with intervals and items."""
    from kit.report.exchange import export_eee
    from kit.report.files import read_run

    for path in export_eee(read_run(run), output, organization=organization):
        click.echo(str(path))


@command.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The YAML file."
)
@click.option("--url", required=True, help="Where the run can be looked at.")
def hub(run: Path, output: Path, url: str) -> None:
    """The file that the hub reads below .eval_results/ of a model's repository.

    Only cells that were measured on a dataset of the hub stand in it.
    """
    from kit.report.exchange import export_hub
    from kit.report.files import read_run

    export_hub(read_run(run), output, url=url)
    click.echo(str(output))


command.add_command(snakemake)
