"""``kit reproduce``: everything, from the check of the machine to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kit.cli.planning import chosen, plan_options, prepare, run_options
from kit.errors import EXIT_OK


@click.command("reproduce")
@plan_options
@run_options
def command(**given: Any) -> int:
    """Check the machine, fetch the inputs, run EXPERIMENT, verify it and write the report.

    Ends with the verdict and the path of the report. Exit code: that of verify, or of the first
    part that could not be done.
    """
    planned, options = chosen(given)
    experiment, profile = planned["experiment"], planned["profile"]
    if options.blind:
        from kit.engine import blind

        blind.close(blind.closed_paths(experiment, profile))
    # On a cluster it is the nodes that must be fit, and each job looks at its own.
    for part in ("doctor", "fetch") if options.slurm is None else ("fetch",):
        code = call(part, experiment, "--profile", profile)
        if code != EXIT_OK:
            return code
    folder = prepare(**planned).session(options).run()
    return finish(folder)


def finish(folder: Path) -> int:
    """Verify a run, write its report, and end with the verdict and the report's path."""
    from kit.cli.state import console, print_json, state
    from kit.report.session import write_report
    from kit.verify.basis import deliver, read_basis, verdict_of
    from kit.verify.render import render

    basis = read_basis(str(folder))
    verdict = verdict_of(basis)
    deliver(basis, verdict)
    report = write_report(folder)
    if state().mode() == "json":
        print_json(verdict)
        click.echo(str(report))
    else:
        render(verdict, console(), path=str(report))
    return verdict.exit_code


def call(name: str, *arguments: str) -> int:
    """Run another command of the kit as if it had been typed; returns its exit code."""
    from kit.cli.main import cli
    from kit.cli.state import state

    context = click.get_current_context()
    other = cli.get_command(context, name)
    assert other is not None
    # Outside of standalone mode click returns the code of a command that ends by context.exit.
    result = other.main(list(arguments), prog_name=name, standalone_mode=False, obj=state())
    return result if isinstance(result, int) else EXIT_OK
