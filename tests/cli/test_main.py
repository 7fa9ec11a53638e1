"""The command group: laziness, errors, exit codes, options."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from kit.cli import main
from kit.cli.planning import chosen_options, prepare
from kit.cli.state import State, state
from kit.engine.session import Options
from kit.errors import InvalidInput, KitError, Many, StepFailed, UsageError
from tests.cli.conftest import Kit

ROOT = Path(__file__).parents[2]


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kit.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def fake(monkeypatch: pytest.MonkeyPatch, function: Any, **options: Any) -> None:
    """Put a command ``try-it`` into the table."""
    module = ModuleType("tests.cli.fake_command")
    module.command = click.command("try-it", **options)(function)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tests.cli.fake_command", module)
    monkeypatch.setitem(main.COMMANDS, "try-it", ("tests.cli.fake_command", "Try it."))


def test_several_problems_are_counted_where_only_a_sentence_fits() -> None:
    many = Many([InvalidInput("one"), UsageError("two")])
    assert str(many) == many.what == "2 problems"
    assert many.exit_code == max(InvalidInput.exit_code, UsageError.exit_code)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from kit.cli.main import run; run(['--help'])\n"
        "heavy = {'torch', 'jsonschema', 'scipy', 'numpy', 'rich', 'huggingface_hub', 'msgspec',"
        " 'transformers', 'ruamel'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stderr.strip() == "[]"


def test_help_names_every_command(kit: Kit) -> None:
    found = kit("--help")
    assert found.code == 0
    for name, (_, line) in main.COMMANDS.items():
        assert f"  {name}" in found.out
        assert line.split()[0] in found.out


def test_every_command_that_is_here_has_help(kit: Kit) -> None:
    for name in ("list", "show", "validate", "fetch", "doctor", "docs"):
        found = kit(name, "--help")
        assert found.code == 0
        assert "Usage: kit " + name in found.out


def every_command() -> dict[str, click.Command]:
    """All commands and what is below them, by what one types."""
    found: dict[str, click.Command] = {}
    for name in main.COMMANDS:
        command = main.cli.get_command(click.Context(main.cli), name)
        assert command is not None
        below = command.commands if isinstance(command, click.Group) else {}
        found |= {f"{name} {other}": value for other, value in below.items()} or {name: command}
    return found


def test_every_command_takes_the_options_that_it_offers() -> None:
    """Options are shared by decorators: one that a function does not know shows when it is called,
    and not before."""
    planned = set(inspect.signature(prepare).parameters)
    how = set(inspect.signature(chosen_options).parameters) - {"others"}
    fields = {field.name for field in dataclasses.fields(Options)} - {"progress", "slurm"}
    for name, command in every_command().items():
        assert command.callback is not None
        takes = set(inspect.signature(command.callback).parameters) - {"context"}
        offers = {one.name for one in command.params if one.expose_value}
        if "planned" in takes:  # handed on to prepare
            takes = takes - {"planned"} | (offers & planned)
        if takes & {"how", "given"}:  # handed on to chosen_options
            more = planned if "given" in takes else set()
            takes = takes - {"how", "given"} | how | fields | (offers & more)
        assert takes == offers, name


def test_no_arguments_shows_help_and_is_a_usage_error(kit: Kit) -> None:
    found = kit()
    assert found.code == 2
    assert "Commands:" in found.out + found.err


def test_the_version(kit: Kit) -> None:
    assert kit("--version").out.startswith("kit, version ")


def test_a_missing_room_breaks_only_its_own_command(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(main.COMMANDS, "ghost", ("kit.cli.no_such_room", "Not there."))
    assert kit("--help").code == 0
    found = kit("ghost")
    assert found.code == 4
    assert "the command 'ghost' cannot be loaded" in found.err
    assert "does not have it" in found.err


def test_a_room_whose_dependency_is_missing_says_which(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "needy_room.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(main.COMMANDS, "needy", ("needy_room", "Needs something."))
    found = kit("needy")
    assert found.code == 4
    assert "no_such_library" in found.err


def test_unknown_commands_and_options(kit: Kit) -> None:
    found = kit("shwo")
    assert found.code == 2
    assert "Did you mean 'show'?" in found.err
    assert kit("zzzz").code == 2
    assert kit("show").code == 2
    assert kit("list", "--nonsense").code == 2
    assert kit("--nonsense").code == 2


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("bad", next_step="do"), 2, "error: bad\n  next: do"),
        (InvalidInput("bad", where="x:1:2", why="so"), 4, "error: x:1:2: bad\n  why:  so"),
        (Many([InvalidInput("one"), InvalidInput("two")]), 4, "error: one\nerror: two"),
        (KitError("base"), 4, "error: base"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
    ],
)
def test_errors_become_text_and_codes(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def function() -> None:
        raise error

    fake(monkeypatch, function)
    found = kit("try-it")
    assert found.code == code
    assert said in found.err
    assert found.out == ""


@pytest.mark.parametrize("debug", [True, False])
def test_the_traceback_of_a_failed_step_is_shown_when_asked_for(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    one, two = StepFailed("a"), StepFailed("b")
    one.trace, two.trace = "Traceback one\n", "Traceback two\n"
    for error, said in ((one, "Traceback one\n"), (Many([one, two]), one.trace + two.trace)):

        def function(error: KitError = error) -> None:
            raise error

        fake(monkeypatch, function)
        found = kit(*(["--debug"] if debug else []), "try-it")
        assert found.err == (said if debug else "") + error.render() + "\n"


def test_codes_of_commands_are_kept(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, lambda: 3)
    assert kit("try-it").code == 3
    fake(monkeypatch, lambda: click.get_current_context().exit(1))
    assert kit("try-it").code == 1
    fake(monkeypatch, lambda: None)
    assert kit("try-it").code == 0
    fake(monkeypatch, lambda: True)
    assert kit("try-it").code == 0


def test_an_unexpected_error_is_short_and_keeps_its_traceback(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = "hf_" + "abcdefghijklmnopqrstuvwxyz"
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", secret)

    def function() -> None:
        raise ZeroDivisionError(f"with {secret} inside")

    fake(monkeypatch, function)
    found = kit("try-it")
    assert found.code == 5
    assert "unexpected ZeroDivisionError" in found.err
    assert "Traceback" not in found.err
    (kept,) = (tmp_path / "home" / "logs").glob("crash-*.txt")
    assert str(kept) in found.err
    assert "Traceback" in kept.read_text()
    assert secret not in kept.read_text() + found.err
    shown = kit("--debug", "try-it")
    assert "Traceback" in shown.err
    assert secret not in shown.err
    assert len(list((tmp_path / "home" / "logs").iterdir())) == 1
    assert "Traceback" in kit("try-it", "--debug").err


def test_a_crash_in_a_home_that_cannot_be_written(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "file"))

    def function() -> None:
        raise RuntimeError("x")

    fake(monkeypatch, function)
    found = kit("try-it")
    path = Path(found.err.split("the traceback is in ")[1].split(";")[0])
    assert path.is_file()
    path.unlink()


def test_progress_before_and_after_the_command(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    fake(monkeypatch, lambda: seen.append(state().mode()))
    monkeypatch.delenv("KIT_PROGRESS", raising=False)
    kit("try-it")
    kit("--progress", "json", "try-it")
    kit("try-it", "--progress", "json")
    kit("--progress", "json", "try-it", "--progress", "rich")
    monkeypatch.setenv("KIT_PROGRESS", "json")
    kit("try-it")
    assert seen == ["plain", "json", "json", "rich", "json"]
    assert kit("--progress", "loud", "list").code == 2


def test_the_mode_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert State().mode() == "rich"
    monkeypatch.setenv("TERM", "dumb")
    assert State().mode() == "plain"


def test_no_telemetry() -> None:
    script = (
        "import os; from kit.cli.main import run; run(['--version'])\n"
        "print(os.environ['HF_HUB_DISABLE_TELEMETRY'], os.environ['DO_NOT_TRACK'])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.splitlines()[-1] == "1 1"


def test_a_reader_that_goes_away_is_no_error() -> None:
    shell = f"{sys.executable} -m kit.cli.main show tiny-adapt --json | head -c 10"
    found = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert "Traceback" not in found.stderr
    assert "Exception" not in found.stderr


def test_the_process_leaves_with_the_code() -> None:
    assert process("show", "no-such-experiment").returncode == 2
    assert process("list", "--json").returncode == 0
    assert json.loads(process("list", "--json").stdout)


def test_interrupting_a_process_gives_130(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(
        "import click, time\n@click.command()\ndef command():\n"
        "    print('ready', flush=True)\n    time.sleep(30)\n"
    )
    script = (
        # A test run in the background starts its children with SIGINT ignored.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from kit.cli import main; main.COMMANDS['sleep'] = ('sleeper', 'Sleep.');"
        "import sys; sys.argv = ['kit', 'sleep']; main.main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=20) == 130


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_under_standard_output_is_no_fault_of_the_kit() -> None:
    """`kit plan EXP --json > plan.json`"""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kit.cli.main", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert done.returncode == 5
    assert done.stderr.startswith("error: the disk of standard output")
    assert "fault of the kit" not in done.stderr


def test_models_cannot_be_made_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = process("mini", "build", "injection", str(tmp_path / "file" / "models"))
    assert done.returncode == 4
    assert "the folder cannot be made: Not a directory" in done.stderr
