"""``kit compare``: two runs cell by cell, and the first place where they part."""

from __future__ import annotations

from pathlib import Path

import click

from kit.cli.state import JSON, console, print_json


@click.command(name="compare")
@click.argument("first", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("second", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--store",
    "stores",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Store of the first (then of the second) run; default $KIT_HOME/store.",
)
@click.option("--all", "every", is_flag=True, help="List the cells that are the same, too.")
@JSON
@click.pass_context
def command(
    context: click.Context,
    first: Path,
    second: Path,
    stores: tuple[Path, ...],
    every: bool,
    as_json: bool,
) -> None:
    """Compare two runs of one experiment.

    Cells stand side by side, with paired statistics where both runs have labels of the same items
    or seeds of the same ids. Then the plans are walked to the first step whose outputs differ, and
    inside it to the first item: prompt, token ids, generation, label, count. Exit code 1 on any
    difference.
    """
    from kit.errors import EXIT_CLAIM_FAILED, EXIT_OK
    from kit.manifest.home import kit_home
    from kit.results.run import open_run
    from kit.verify.compare import compare, lines

    roots = [*stores, *([stores[-1]] if stores else [kit_home() / "store"] * 2)]
    outcome = compare(open_run(first), open_run(second), (roots[0], roots[1]))
    if as_json:
        print_json(outcome)
    else:
        out = console()
        for line in lines(outcome, every=every):
            out.print(line, markup=False)
    context.exit(EXIT_OK if outcome.identical else EXIT_CLAIM_FAILED)
