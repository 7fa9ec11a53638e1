"""``kit verify``: compare a run, or a table brought from elsewhere, with the expectation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kit.cli.state import JSON, console, print_json

if TYPE_CHECKING:
    from kit.verify.basis import Basis


@click.command(name="verify")
@click.argument("run", metavar="RUN|EXP")
@click.option("--results", type=click.Path(path_type=Path), help="A table measured elsewhere.")
@click.option("--profile", default="mini", show_default=True, help="Profile, with --results.")
@click.option(
    "--expectation", type=click.Path(path_type=Path), help="Compare with this file instead."
)
@JSON
@click.option("--explain", is_flag=True, help="Checks, claims with their statistics, and terms.")
@click.option("--all", "every", is_flag=True, help="The same, and every cell.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML.")
@click.option("--selftest", is_flag=True, help="Plant deviations and count how many are found.")
@click.pass_context
def command(
    context: click.Context,
    run: str,
    results: Path | None,
    profile: str,
    expectation: Path | None,
    as_json: bool,
    explain: bool,
    every: bool,
    junit: Path | None,
    selftest: bool,
) -> None:
    """Compare the run directory RUN with the published numbers and claims.

    With --results FILE the argument is an experiment, and the table in FILE is checked by the same
    rules. Exit code: 0 reproduced, 1 a primary claim fails, 3 not decided, 4 invalid
    input. The verdict is written to RUN/verdict.json; what is printed is its end.
    """
    from kit.verify import basis as bases

    basis = bases.read_basis(run, results, profile, expectation)
    if selftest:
        _selftest(basis, as_json, every, expectation)
        return
    verdict = bases.verdict_of(basis)
    bases.deliver(basis, verdict, junit)
    if as_json:
        print_json(verdict)
    else:
        from kit.verify.render import render

        hint = "" if results is not None else f"next: kit report {run}"
        render(verdict, console(), explain=explain, every=every, next_step=hint)
    context.exit(verdict.exit_code)


def _selftest(basis: Basis, as_json: bool, every: bool, expectation: Path | None) -> None:
    import msgspec

    from kit.verify.selftest import lines, screen, selftest
    from kit.verify.tampered import try_all

    outcome = selftest(basis.subject)
    if basis.output is not None:
        tampered = list(try_all(basis.output.parent, expectation))
        outcome = msgspec.structs.replace(outcome, tampered=tampered)
    if as_json:
        print_json(outcome)
        return
    out = console()
    for line in [*(lines(outcome) if every else ()), *screen(outcome)]:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
