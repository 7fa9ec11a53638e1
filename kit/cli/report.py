"""``kit report``: a run as one file to read."""

from __future__ import annotations

from pathlib import Path

import click

from kit.cli.state import print_or_write


@click.command(name="report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write it.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "markdown"]),
    default="html",
    show_default=True,
    help="markdown is short, to be pasted into a review form; without -o it is printed.",
)
@click.option(
    "--show-generations",
    is_flag=True,
    help="Include what the models answered (html; may be harmful).",
)
def command(run: Path, output: Path | None, form: str, show_generations: bool) -> None:
    """Write the verified run directory RUN as one self-contained HTML file, RUN/report.html.

    The file loads nothing from anywhere and can be mailed, archived and printed. The last line of
    standard output is its path.
    """
    from kit.errors import UsageError
    from kit.report.session import expectation_of, manifest_of, write_report

    if form == "markdown" and show_generations:
        raise UsageError(
            "--show-generations belongs to --format html",
            why="a short summary never carries model responses",
            next_step="leave out one of the two",
        )
    if form == "html":
        click.echo(str(write_report(run, output, show_generations=show_generations)))
        return
    from kit.report.files import read_run
    from kit.report.markdown import render_markdown

    files = read_run(run)
    text = render_markdown(files, manifest=manifest_of(files), expectation=expectation_of(files))
    print_or_write(text, output)
