"""Of every choice a command makes both sides, without a run."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import click
import msgspec
import pytest

from kit.cli import doctor, kinds, main, planning, show, state
from kit.cli import log as log_command
from kit.doctor import Check
from kit.engine.slurm.options import MAX_JOBS
from kit.errors import EXIT_OK, InvalidInput, UsageError
from kit.manifest.catalog import Catalog
from kit.manifest.types import Profile
from kit.pins import Event
from tests.cli.conftest import Kit

# -- main


@pytest.mark.parametrize(("made", "code"), [(None, 0), (4, 4), (0, 0), (True, 0), ("x", 0)])
def test_a_command_leaves_with_the_number_it_returns(
    monkeypatch: pytest.MonkeyPatch, made: object, code: int
) -> None:
    monkeypatch.setattr(main.cli, "main", lambda **_: made)
    assert main.run(["list"]) == code
    monkeypatch.setattr(main, "run", lambda: made)
    handlers: list[Any] = []
    monkeypatch.setattr(main.signal, "getsignal", lambda number: signal.SIG_DFL)
    monkeypatch.setattr(main.signal, "signal", lambda *given: handlers.append(given))
    with pytest.raises(SystemExit) as left:
        main.main()
    assert left.value.code == made
    assert handlers == [(signal.SIGTERM, signal.default_int_handler)]
    monkeypatch.setattr(main.signal, "getsignal", lambda number: signal.SIG_IGN)
    with pytest.raises(SystemExit):
        main.main()
    assert len(handlers) == 1, "a handler that somebody set stays"


def test_a_reader_that_has_gone_is_the_signal_of_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell counts it: 128 and the number of the signal."""
    turned: list[tuple[int, int]] = []

    def gone(**_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(main.cli, "main", gone)
    monkeypatch.setattr(main.os, "open", lambda path, how: 77)
    monkeypatch.setattr(main.os, "dup2", lambda *given: turned.append(given))
    monkeypatch.setattr(main.sys, "stdout", SimpleNamespace(fileno=lambda: 1))
    assert main.run(["list"]) == 141
    assert turned == [(77, 1)]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(28, "No space left on device"), 5, "the disk of standard output"),
        (OSError(28, "No space left on device", "/x"), 5, "unexpected OSError"),
        (OSError(5, "Input/output error"), 5, "unexpected OSError"),
        (RuntimeError("x"), 5, "unexpected RuntimeError"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
        (click.exceptions.Exit(3), 3, ""),
        (InvalidInput("bad"), 4, "error: bad"),
    ],
)
def test_what_ends_a_command_has_its_code(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException, code: int,
    said: str,
) -> None:  # fmt: skip
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setenv("KIT_HOME", str(tmp_path))
    monkeypatch.setattr(main.cli, "main", fail)
    done = kit("list")
    assert done.code == code
    assert said in done.err
    assert bool(said) == bool(done.err)


def test_programs_that_call_home_are_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main.cli, "main", lambda **_: None)
    for name in main.TELEMETRY_OFF:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    assert main.run([]) == EXIT_OK
    assert os.environ["DO_NOT_TRACK"] == "1"
    assert os.environ["WANDB_MODE"] == "online", "what somebody set stays"


@pytest.mark.parametrize(
    ("asked", "terminal", "term", "mode"),
    [
        (None, True, "xterm", "rich"),
        (None, True, "dumb", "plain"),
        (None, False, "xterm", "plain"),
        ("rich", False, "dumb", "rich"),
        ("plain", True, "xterm", "plain"),
        ("json", True, "xterm", "json"),
    ],
)
def test_progress_is_shown_as_asked_or_as_the_terminal_can(
    monkeypatch: pytest.MonkeyPatch, asked: Any, terminal: bool, term: str, mode: str
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(state.sys, "stdout", SimpleNamespace(isatty=lambda: terminal))
    assert state.State(progress=asked).mode() == mode


# -- fetch


@pytest.mark.parametrize("mode", ["plain", "json", "rich"])
def test_fetching_is_shown_line_by_line(
    kit: Kit, repo: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    quiet: list[bool] = []

    def fetch(*_: object, listener: Callable[[Event], None], **how: object) -> list[Any]:
        listener(Event("p", "file", "a.bin", 1234))
        listener(Event("p", "file", "b.bin", None))
        listener(Event("p", "size", "2 files", 5678))
        listener(Event("p", "file", "empty", 0))
        return [SimpleNamespace(state=SimpleNamespace(id=i, status=s)) for i, s in given]

    given = [("p", "ok"), ("q", "unconfirmed")]
    monkeypatch.setattr("kit.pins.command.fetch_experiment", fetch)
    monkeypatch.setattr("kit.pins.hub.quiet", lambda: quiet.append(True))
    done = kit("fetch", "demo", "--profile", "mini", "--progress", mode)
    lines = done.out.splitlines()
    assert (done.code, quiet) == (0, [] if mode == "rich" else [True])
    if mode == "json":
        assert [json.loads(line) for line in lines] == [
            {"event": "fetch.file", "pin": "p", "detail": "a.bin", "bytes": "1234"},
            {"event": "fetch.file", "pin": "p", "detail": "b.bin"},
            {"event": "fetch.size", "pin": "p", "detail": "2 files", "bytes": "5678"},
            {"event": "fetch.file", "pin": "p", "detail": "empty", "bytes": "0"},
        ]
        return
    assert lines == [
        "fetch p: file a.bin (1,234 bytes)",
        "fetch p: file b.bin",
        "fetch p: size 2 files",
        "fetch p: file empty",
        "2 pins ready",
        "not confirmed by anyone yet: q",
    ]
    given.pop()
    assert "not confirmed" not in kit("fetch", "demo", "--profile", "mini").out


# -- planning


@pytest.mark.parametrize(
    ("rehearsal", "gpus", "memory", "planned"),
    [
        (True, None, [0.0, 80.0], 2),
        (True, None, [80.0], 1),
        (True, None, [0.0], None),
        (True, None, [], None),
        (True, 4, [80.0, 80.0], 4),
        (False, None, [80.0], None),
        (False, 4, [], 4),
    ],
)
def test_a_rehearsal_takes_the_gpus_that_are_here(
    repo: Path,
    monkeypatch: pytest.MonkeyPatch,
    rehearsal: bool,
    gpus: int | None,
    memory: list[float],
    planned: int | None,
) -> None:
    machine = SimpleNamespace(gpus=[SimpleNamespace(memory_gb=gb) for gb in memory])
    given: dict[str, Any] = {}

    def plan_of(*_: object, **how: Any) -> Any:
        given.update(how)
        return SimpleNamespace()

    monkeypatch.setattr("kit.engine.environment.this_machine", lambda arch: machine)
    monkeypatch.setattr("kit.engine.registry.load_registry", lambda: None)
    monkeypatch.setattr(planning, "plan_of", plan_of)
    made = planning.prepare("demo", "mini", rehearsal=rehearsal, gpus=gpus)
    assert (given["gpus"], given["rehearsal"]) == (planned, rehearsal)
    assert made.plan.manifest == ""


@pytest.mark.parametrize(
    ("named", "experiment", "has", "meant"),
    [
        (None, "demo", ["paper", "mini"], "mini"),
        (None, "demo", ["paper", "small"], "paper"),
        (None, "demo", ["small"], "small"),
        (None, "demo", [], "mini"),
        (None, None, ["paper"], "mini"),
        ("paper", "demo", ["mini"], "paper"),
        ("paper", None, ["mini"], "paper"),
    ],
)
def test_the_profile_that_is_meant(
    monkeypatch: pytest.MonkeyPatch,
    named: str | None,
    experiment: str | None,
    has: list[str],
    meant: str,
) -> None:
    manifest = SimpleNamespace(profiles={name: Profile(summary="") for name in has})
    monkeypatch.setattr(Catalog, "manifest", lambda self, id: manifest)
    context = click.Context(click.Command("x"))
    context.params = {"experiment": experiment} if experiment else {}
    assert planning._meant(context, click.Option(["--profile"]), named) == meant


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({}, ""),
        ({"jobs": 2}, ""),
        ({"max_jobs": 3}, "mean nothing to the local executor"),
        ({"slurm_parameters": ("a=b",)}, "mean nothing to the local executor"),
        ({"executor": "slurm"}, ""),
        ({"executor": "slurm", "max_jobs": 3}, ""),
        ({"executor": "slurm", "jobs": 2}, "--jobs is about steps on this machine"),
        ({"executor": "slurm", "blind": True}, "--blind closes files"),
        ({"executor": "slurm", "blind": False}, ""),
        ({"blind": True, "check": True}, ""),
    ],
)
def test_options_of_a_run_fit_together_or_are_refused(given: dict[str, Any], refused: str) -> None:
    plain = {"executor": "local", "slurm_parameters": (), "max_jobs": None, "jobs": None,
             "check": False, "blind": False}  # fmt: skip
    with click.Context(click.Command("x")):
        if refused:
            with pytest.raises(UsageError, match=refused):
                planning.chosen_options(**(plain | given))
            return
        made = planning.chosen_options(**(plain | given))
    assert (made.jobs, made.blind) == (given.get("jobs"), given.get("blind", False))
    assert made.check == ("all" if given.get("check") else "small")
    assert (made.slurm is not None) == ("executor" in given)
    if made.slurm is not None:
        assert made.slurm.max_jobs == given.get("max_jobs", MAX_JOBS)


# -- compare, verify, log, mini


@pytest.mark.parametrize(
    ("stores", "roots"),
    [
        ([], ["home/store", "home/store"]),
        (["a"], ["a", "a"]),
        (["a", "b"], ["a", "b"]),
        (["a", "b", "c"], ["a", "b"]),
    ],
)
@pytest.mark.parametrize("identical", [True, False])
def test_two_runs_are_looked_up_in_their_stores(
    kit: Kit,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    stores: list[str],
    roots: list[str],
    identical: bool,
) -> None:
    asked: list[Any] = []

    def compare(first: object, second: object, where: object) -> Any:
        asked.append(where)
        return SimpleNamespace(identical=identical)

    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("kit.results.run.open_run", lambda folder: folder)
    monkeypatch.setattr("kit.verify.compare.compare", compare)
    monkeypatch.setattr(
        "kit.verify.compare.lines", lambda outcome, every: ["[a] line", f"all: {every}"]
    )
    named = [part for store in stores for part in ("--store", str(tmp_path / store))]
    done = kit("compare", "x", "y", *named)
    assert asked == [tuple(tmp_path / root for root in roots)]
    assert (done.code, done.out) == (0 if identical else 1, "[a] line\nall: False\n")


@pytest.mark.parametrize("every", [False, True])
def test_what_a_self_test_says_is_printed_as_it_is(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, every: bool
) -> None:
    long = "[red] 12 " + "word " * 60
    basis = SimpleNamespace(subject=None, output=None)
    monkeypatch.setattr("kit.verify.basis.read_basis", lambda *_: basis)
    monkeypatch.setattr("kit.verify.selftest.selftest", lambda subject: "outcome")
    monkeypatch.setattr("kit.verify.selftest.lines", lambda outcome: ["each"])
    monkeypatch.setattr("kit.verify.selftest.screen", lambda outcome: [long, "last"])
    done = kit("verify", "x", "--selftest", *(["--all"] if every else []))
    assert done.out.splitlines() == [*(["each"] if every else []), long, "last"]
    assert done.code == 0


def test_the_log_of_this_folder_or_else_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kit.manifest.home.writable_root", lambda: tmp_path / "root")
    assert log_command._here() == tmp_path / "root" / "reproductions"
    (tmp_path / "reproductions").mkdir()
    assert log_command._here() == Path("reproductions")


@pytest.mark.parametrize(("typed", "seeds"), [([], 7), (["--seeds", "2"], 2)])
def test_a_world_is_built_into_a_folder_that_is_there(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: list[str], seeds: int
) -> None:
    asked: list[Any] = []

    def build(folder: Path, wanted: int, jobs: int, say: object) -> None:
        asked.append((folder.is_dir(), wanted, jobs))

    world = SimpleNamespace(wanted=7, build=build, files=lambda: {"a/b.txt": "x"})
    monkeypatch.setattr("kit.mini.worlds.get_world", lambda name: world)
    folder = tmp_path / "new" / "models"
    assert kit("mini", "build", "w", str(folder), *typed).out == f"{folder}\n"
    assert asked == [(True, seeds, 1)]
    files = tmp_path / "other" / "files"
    assert kit("mini", "files", "w", str(files)).out == f"{files}\n"
    assert (files / "a" / "b.txt").read_text() == "x"


# -- doctor, show, kinds


def check(level: Any, name: str) -> Check:
    return Check(what=name, level=level, detail=f"{name} is so [red]")


@pytest.mark.parametrize(
    ("experiment", "failures", "said"),
    [
        (None, 0, "this machine"),
        (None, 1, "this machine: 1 thing is wrong with it"),
        (None, 2, "this machine: 2 things are wrong with it"),
        ("e", 0, "e --profile p: can run here"),
        ("e", 1, "e --profile p: cannot run here, 1 thing is in the way"),
    ],
)
def test_a_machine_in_a_line(experiment: str | None, failures: int, said: str) -> None:
    checks = [check("FAIL", f"f{i}") for i in range(failures)]
    checks += [check("WARN", "w"), check("OK", "o")]
    assert doctor._headline(experiment, "p", checks) == said


def test_what_stands_in_the_way_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["OK", "FAIL", "WARN", "OK", "FAIL"]
    with click.Context(click.Command("x")):
        doctor._print("head", [check(level, f"n{i}") for i, level in enumerate(names)])
    out = capsys.readouterr().out
    assert out.startswith("head\n")
    assert out.count("[red]") == 5
    assert [out.index(f"n{i} is so") for i in (1, 4, 2, 0, 3)] == sorted(
        out.index(f"n{i} is so") for i in range(5)
    )


@pytest.mark.parametrize(
    ("experiment", "runs", "line"),
    [
        ("e", [False, True, True], "can run here: kit reproduce e --profile p1\n"),
        ("e", [False], ""),
        ("e", [], ""),
        (None, [True], ""),
    ],
)
def test_what_can_run_instead_is_named(
    capsys: pytest.CaptureFixture[str], experiment: str | None, runs: list[bool], line: str
) -> None:
    fitting: Any = [SimpleNamespace(runs=able, profile=f"p{i}") for i, able in enumerate(runs)]
    levels = ["FAIL", "WARN", "WARN", "OK"]
    doctor._closing(experiment, [check(level, "n") for level in levels], fitting)
    assert capsys.readouterr().out == f"{line}1 failure, 2 warnings\n"


PIN = {"id": "p", "title": "T", "kind": "file", "licence": "L", "gated": False, "bytes": None,
       "at": "", "revision": None, "unconfirmed": None, "unavailable": None}  # fmt: skip


def texts(lines: Iterator[tuple[str, str]]) -> list[str]:
    return [line.strip() for line, _ in lines]


@pytest.mark.parametrize(
    ("pin", "said"),
    [
        ({"problem": "none"}, ["p: none"]),
        ({}, ["p: T (file)", "licence: L"]),
        ({"bytes": 0}, ["p: T (file, 0 bytes)", "licence: L"]),
        ({"bytes": 1234, "gated": True}, ["p: T (file, gated, 1,234 bytes)", "licence: L"]),
        ({"at": "o/n", "revision": "r"}, ["p: T (file)", "o/n @ r", "licence: L"]),
        ({"at": "o/n"}, ["p: T (file)", "o/n", "licence: L"]),
        ({"unconfirmed": "u", "unavailable": "v"},
         ["p: T (file)", "licence: L", "unconfirmed: u", "unavailable: v"]),
    ],
)  # fmt: skip
def test_an_input_in_lines(pin: dict[str, Any], said: list[str]) -> None:
    assert texts(show._input(PIN | pin)) == said


@pytest.mark.parametrize(
    ("count", "named"),
    [(1, "p0 (1 input, in the kit)"), (4, "p0, p1, p2, p3 (4 inputs, in the kit)"),
     (5, "p0, p1, ..., p4 (5 inputs, in the kit)")],
)  # fmt: skip
def test_what_ships_with_the_kit_is_one_line(count: int, named: str) -> None:
    pins = [PIN | {"id": f"p{i}", "kind": "package"} for i in range(count)]
    other = PIN | {"id": "u", "kind": "package", "unconfirmed": "why"}
    gone = PIN | {"id": "v", "kind": "package", "unavailable": "why"}
    assert texts(show._inputs([*pins, other, gone])) == [
        "u: T (package)", "licence: L", "unconfirmed: why",
        "v: T (package)", "licence: L", "unavailable: why", named, "licence: L",
    ]  # fmt: skip


STEP: dict[str, Any] = {"id": "s", "kind": "f/k", "each": [], "instances": 3, "resources": None,
                        "set": {}}  # fmt: skip
NEEDS = {"gpus": 0, "gpu_memory_gb": 80.0, "memory_gb": 2.5, "minutes": 3.0, "disk_gb": 0.0,
         "source": ""}  # fmt: skip


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({}, ["s (f/k)"]),
        ({"each": ["a", "b"]}, ["s (f/k, 3 times over a, b)"]),
        ({"resources": NEEDS}, ["s (f/k)", "needs 2.5 GB memory, 3 min, 0 GB disk"]),
        ({"resources": NEEDS | {"gpus": 2, "source": "timed"}},
         ["s (f/k)", "needs 2 GPU x 80 GB, 2.5 GB memory, 3 min, 0 GB disk (timed)"]),
        ({"set": {"x": {"value": "\u00e9", "source": None}, "y": {"value": 1, "source": "d"}}},
         ["s (f/k)", 'x = "\u00e9"', "y = 1  [d]"]),
    ],
)  # fmt: skip
def test_a_step_in_lines(step: dict[str, Any], said: list[str]) -> None:
    assert texts(show._step(STEP | step)) == said


@pytest.mark.parametrize(
    ("compares", "shown"),
    [(["reference", "published", "published"], "p1"), (["reference", "reference"], "p0")],
)
def test_the_empty_table_is_of_the_published_profile(compares: list[str], shown: str) -> None:
    profiles = {f"p{i}": Profile(summary="", compares=of) for i, of in enumerate(compares)}  # type: ignore[arg-type]
    assert show._published(SimpleNamespace(profiles=profiles)) == shown  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (int, "int"),
        (int | None, "int | nothing"),
        (list[int], "list[int]"),
        (dict[str, list[float]], "dict[str, list[float]]"),
        (Literal["a", 1], "a | 1"),
        (Annotated[int, msgspec.Meta(ge=0)], "int >= 0"),
        (Annotated[float, msgspec.Meta(gt=0, lt=1)], "float > 0, < 1"),
        (Annotated[float, msgspec.Meta(le=2)], "float <= 2"),
        (Annotated[str, msgspec.Meta(pattern="x")], "str"),
    ],
)
def test_a_type_in_words(annotation: Any, said: str) -> None:
    assert kinds._type(annotation) == said
