"""``kit report``: a run as one file to read."""

from __future__ import annotations

from pathlib import Path

import click


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
    from kit.report.files import read_run, write_file
    from kit.report.session import expectation_of, manifest_of

    if form == "markdown" and show_generations:
        raise UsageError(
            "--show-generations belongs to --format html",
            why="a short summary never carries model responses",
            next_step="leave out one of the two",
        )
    found = read_run(run)
    manifest, expectation = manifest_of(found), expectation_of(found)
    if form == "markdown":
        from kit.report.markdown import render_markdown

        text = render_markdown(found, manifest=manifest, expectation=expectation)
        if output is None:
            click.echo(text, nl=False)
            return
    else:
        from kit.manifest.home import kit_home
        from kit.report.html import render

        text = render(
            found,
            manifest=manifest,
            expectation=expectation,
            show_generations=show_generations,
            home=kit_home(),
        )
    path = output or run / "report.html"
    write_file(path, text)
    click.echo(str(path))
