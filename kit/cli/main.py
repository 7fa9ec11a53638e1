"""The ``kit`` command: a table of lazily imported commands, and what becomes of errors.

Only click is imported here. A command's module is imported when the command is called, so that
``kit --help`` is quick and a broken or absent room does not take the others down.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

from kit import __version__
from kit.cli.state import State, common_options
from kit.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, KitError, Preflight

COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("kit.cli.list", "Experiments, their variants and profiles."),
    "show": ("kit.cli.show", "One experiment: claims, inputs, resources, sources of every value."),
    "kinds": ("kit.cli.kinds", "Step kinds: parameters, inputs, outputs, what they need."),
    "doctor": ("kit.cli.doctor", "Can this machine run it?"),
    "fetch": ("kit.cli.fetch", "Bring and check pinned inputs; afterwards all works offline."),
    "plan": ("kit.cli.plan", "Steps, keys, what is cached, memory, time, download."),
    "run": ("kit.cli.run", "Run an experiment, or resume it."),
    "sweep": ("kit.cli.sweep", "Search attack settings under a utility bound."),
    "rehearse": ("kit.cli.rehearse", "Full shape, random weights: does it fit, how long?"),
    "step": ("kit.cli.step", "Run one step of a plan file (for schedulers)."),
    "collect": ("kit.cli.collect", "The run directory of a plan that another engine has run."),
    "verify": ("kit.cli.verify", "Compare a run with what was published."),
    "report": ("kit.cli.report", "One self-contained HTML file of a run."),
    "reproduce": ("kit.cli.reproduce", "doctor, fetch, run, verify, report."),
    "store": ("kit.cli.store", "What is kept of finished steps, by size; remove some of it."),
    "compare": ("kit.cli.compare", "Two runs cell by cell; the first step that differs."),
    "export": ("kit.cli.export", "RO-Crate, Snakefile, table, artifact appendix."),
    "log": ("kit.cli.log", "The reproduction log."),
    "reference": ("kit.cli.reference", "Make runs the reference values of an expectation."),
    "mini": ("kit.cli.mini", "The miniature worlds: make their models and data again."),
    "new": ("kit.cli.new", "A running template for a paper of your own."),
    "validate": ("kit.cli.validate", "Check manifests, pins and expectations."),
    "docs": ("kit.cli.docs", "Regenerate the generated parts of the documentation."),
}
"""Name -> module with an attribute ``command``, and the line that help shows."""

TELEMETRY_OFF = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module = COMMANDS[cmd_name][0]
        try:
            command: click.Command = importlib.import_module(module).command
        except ImportError as error:
            absent = isinstance(error, ModuleNotFoundError) and error.name == module
            raise Preflight(
                f"the command {cmd_name!r} cannot be loaded",
                where=module,
                why="this installation does not have it" if absent else str(error),
                next_step="make setup in the repository, or install the kit's wheel again",
            ) from error
        if not any(parameter.name == "progress" for parameter in command.params):
            command.params.extend(common_options(hidden=True))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, suggesting the nearest name for an unknown one."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help lines of the table; nothing is imported for them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    params=common_options(hidden=False),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="kit")
@click.pass_context
def cli(context: click.Context) -> None:
    """Reproduce published LLM-safety results, and say honestly what was reproduced.

    Exit codes: 0 reproduced or done; 1 a primary claim fails; 2 wrong usage; 3 not decided;
    4 invalid input or this machine cannot; 5 a step failed; 130 interrupted. After 5 and 130 the
    same command goes on where it stopped.
    """
    context.ensure_object(State)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors go to stderr."""
    for name, value in TELEMETRY_OFF.items():
        os.environ.setdefault(name, value)
    state = State()
    try:
        result: Any = cli.main(
            args=list(arguments) if arguments is not None else None,
            prog_name="kit",
            standalone_mode=False,
            obj=state,
        )
    except KitError as error:
        for each in getattr(error, "errors", (error,)) if state.debug else ():
            click.echo(each.trace, err=True, nl=False)
        click.echo(error.render(), err=True)
        return error.exit_code
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what is finished is kept", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone; writing the rest at interpreter exit must not complain.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and not error.filename:
            click.echo(
                "error: the disk of standard output (or of temporary files) is full", err=True
            )
            return EXIT_FAILED
        from kit.cli.crash import report_crash

        click.echo(report_crash(error, debug=state.debug), err=True)
        return EXIT_FAILED
    return result if isinstance(result, int) and not isinstance(result, bool) else EXIT_OK


def main() -> None:
    """Entry point of the ``kit`` script."""
    # A run counts signals itself; in what is before and after it SIGTERM ends like Ctrl-C, and does
    # so as process 1 of a container too, where the kernel ignores what has no handler.
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run())


if __name__ == "__main__":
    main()
