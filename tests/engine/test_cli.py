"""The commands plan, run, step, rehearse and reproduce, on a toy repository."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from kit.cli import main
from kit.errors import (
    EXIT_CLAIM_FAILED,
    EXIT_FAILED,
    EXIT_INVALID,
    EXIT_OK,
    EXIT_USAGE,
)
from tests.engine.conftest import manifest

PINS = {
    "schema_version": 1,
    "pins": [
        {
            "id": "words",
            "kind": "package",
            "title": "Words",
            "licence": "MIT",
            "path": "errors.py",
            "attributes": {"format": "plain"},
        },
        {
            "id": "gone",
            "kind": "unavailable",
            "title": "Gone",
            "licence": "unknown",
            "unavailable": "private",
            "attributes": {"format": "plain"},
        },
    ],
}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the toy experiment, and a kit home beside it."""
    folder = tmp_path / "repository"
    (folder / "manifests" / "tar").mkdir(parents=True)
    write(folder, manifest())
    (folder / "manifests" / "pins.yaml").write_text(json.dumps(PINS))
    monkeypatch.setenv("KIT_ROOT", str(folder))
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return folder


def write(folder: Path, made: Any) -> None:
    path = folder / "manifests" / "tar" / "toy.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(without_nulls(made))))


def without_nulls(made: Any) -> Any:
    """The manifest as one writes it: absent instead of null."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items() if v is not None}
        return [clean(v) for v in value] if isinstance(value, list) else value

    return clean(msgspec.to_builtins(made))


def kit(*arguments: str) -> int:
    return main.run(list(arguments))


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_run_ends_with_the_run_directory(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kit("run", "toy") == EXIT_OK
    folder = Path(last_line(capsys))
    assert folder.parent == Path("runs")
    assert (folder / "results.json").is_file()
    assert json.loads((folder / "record.json").read_text())["modified"] is False


@pytest.mark.parametrize("mode", ["rich", "plain", "json"])
def test_the_last_line_is_the_same_in_every_mode(
    repository: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    assert kit("run", "toy", "--progress", mode) == EXIT_OK
    *before, last = capsys.readouterr().out.splitlines()
    assert Path(last).is_dir()
    if mode == "json":
        assert {json.loads(line)["event"] for line in before} >= {"step-done", "run-finished"}
    else:
        assert before == []


def test_changes_are_recorded(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kit("run", "toy", "--seed", "5", "--set", "mix.factor=7") == EXIT_OK
    record = json.loads((Path(last_line(capsys)) / "record.json").read_text())
    assert (record["modified"], record["seed"]) == (True, 5)
    assert record["overrides"] == ["mix.factor=7"]


def test_runs_dir(repository: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert kit("run", "toy", "--runs-dir", str(tmp_path / "elsewhere"), "--jobs", "1") == EXIT_OK
    assert Path(last_line(capsys)).parent == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "toyz"], EXIT_USAGE, "unknown experiment"),
        (["run", "toy", "--profile", "paper"], EXIT_USAGE, "no profile 'paper'"),
        (["run", "toy", "--set", "mix.factr=7"], EXIT_USAGE, "did you mean 'factor'"),
        (["run", "toy", "--set", "mix.factor=seven"], EXIT_USAGE, "Expected `int`"),
        (["run", "toy", "--set", "nothing"], EXIT_USAGE, "step.param=value"),
        (["run", "toy", "--jobs", "0"], EXIT_USAGE, "--jobs"),
        (["step", "nowhere.json", "make"], EXIT_INVALID, "nowhere.json: cannot be read"),
        (["rehearse", "toy", "--profile", "mini", "--fraction", "2"], EXIT_USAGE, "fraction"),
    ],
)
def test_mistakes(
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    assert kit(*arguments) == code
    assert words in capsys.readouterr().err


def test_a_failing_step_is_incomplete(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [
        {"id": "f", "kind": "toy/fail", "version": 1},
        {"id": "t", "kind": "toy/table", "version": 1, "inputs": {"numbers": {"step": "f"}}},
    ]
    profile = {"summary": "s", "set": {"f": {"how": "value"}}}
    write(repository, manifest(steps=steps, results="t", profiles={"mini": profile}))
    assert kit("run", "toy") == EXIT_FAILED
    captured = capsys.readouterr()
    assert "error: f: the rank must be positive" in captured.err
    assert captured.out == ""


def test_plan_as_a_table(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kit("plan", "toy") == EXIT_OK
    out = capsys.readouterr().out
    assert "toy 1-A (corrected), mini" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert rows["make"][1:4] == ["toy/make", "3", "0"]
    assert "to run: 7 of 7 steps" in out
    kit("run", "toy")
    capsys.readouterr()
    kit("plan", "toy", "--set", "mix.factor=9")
    out = capsys.readouterr().out
    assert "to run: 4 of 7 steps" in out
    assert "mini, modified" in out


def test_plan_as_json_feeds_kit_step(
    repository: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A plan file alone drives the same steps, in any order that respects inputs."""
    assert kit("plan", "toy", "--json") == EXIT_OK
    text = capsys.readouterr().out
    (tmp_path / "plan.json").write_text(text)
    plan = json.loads(text)
    assert plan["totals"]["to_run"] == 7
    assert kit("step", "plan.json", "table") == EXIT_INVALID
    assert "which is not finished" in capsys.readouterr().err
    for instance in plan["instances"]:
        assert instance["cached"] is False
        assert instance["command"][:3] == ["kit", "step", "plan.json"]
        assert kit(*instance["command"][1:], "--events", "events.jsonl") == EXIT_OK
    assert Path("events.jsonl").read_text().count('"step-done"') == 7
    assert kit("step", "plan.json", "table", "--events", "events.jsonl") == EXIT_OK
    assert Path("events.jsonl").read_text().count('"step-cached"') == 1
    capsys.readouterr()
    assert kit("run", "toy") == EXIT_OK
    record = json.loads((Path(last_line(capsys)) / "record.json").read_text())
    assert {step["state"] for step in record["steps"].values()} == {"cached"}


def test_a_failing_single_step(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [{"id": "f", "kind": "toy/fail", "version": 1}]
    profile = {"summary": "s", "set": {"f": {"how": "exit"}}}
    write(repository, manifest(steps=steps, results="f", profiles={"mini": profile}))
    kit("plan", "toy", "--json")
    Path("plan.json").write_text(capsys.readouterr().out)
    assert kit("step", "plan.json", "f") == EXIT_FAILED
    assert "ended with status 7" in capsys.readouterr().err


def test_rehearse_measures_and_leaves_the_store_of_runs_alone(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kit("rehearse", "toy", "--profile", "mini", "--fraction", "0.5") == EXIT_OK
    out = capsys.readouterr().out
    folder = Path(out.splitlines()[-1])
    found = json.loads((folder / "rehearsal.json").read_text())
    assert found["fraction"] == 0.5
    assert [step["step"] for step in found["steps"]] == ["make", "mix", "table"]
    assert all(step["measured_minutes"] is not None for step in found["steps"])
    assert all(step["peak_memory_gb"] > 0 for step in found["steps"])
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["rehearsal"] is True
    assert plan["instances"][0]["params"]["fraction"] == 0.5
    assert "over plan" in out
    assert "plan error: not measured; no step used a GPU" in out
    kit("plan", "toy")
    assert "to run: 7 of 7" in capsys.readouterr().out


def test_a_rehearsal_that_fails_says_what_it_measured_until_then(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [
        {"id": "make", "kind": "toy/make", "version": 2},
        {"id": "f", "kind": "toy/fail", "version": 1},
    ]
    profile = {"summary": "s", "set": {"f": {"how": "exit"}, "make": {"seed": 1}}}
    write(repository, manifest(steps=steps, results="f", profiles={"mini": profile}))
    assert kit("rehearse", "toy", "--profile", "mini", "--keep-going") == EXIT_FAILED
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    found = json.loads((folder / "rehearsal.json").read_text())
    measured = {step["step"]: step["measured_minutes"] for step in found["steps"]}
    assert measured["make"] is not None
    assert measured["f"] is None


def test_a_rehearsal_needs_not_even_inputs_that_are_gone(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [
        {"id": "read", "kind": "toy/pinned", "version": 1, "inputs": {"source": {"pin": "gone"}}},
        {"id": "mix", "kind": "toy/mix", "version": 1, "inputs": {"data": {"step": "read"}}},
        {"id": "table", "kind": "toy/table", "version": 1, "inputs": {"numbers": {"step": "mix"}}},
    ]
    write(repository, manifest(steps=steps, profiles={"mini": {"summary": "s"}}))
    assert kit("run", "toy") == EXIT_INVALID
    assert "'gone'" in capsys.readouterr().err
    assert kit("rehearse", "toy", "--profile", "mini") == EXIT_OK


# reproduce, with the other rooms' commands replaced.


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, code: int, calls: list[list[str]]) -> None:
    """Replace a command by one that notes its arguments and ends with a code."""

    @click.command(name, context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1)
    @click.pass_context
    def command(context: click.Context, arguments: tuple[str, ...]) -> None:
        calls.append([name, *arguments])
        context.exit(code)

    module = types.ModuleType(f"stand_in_{name}")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(main.COMMANDS, name, (module.__name__, ""))


def test_reproduce_does_everything_and_ends_as_verify(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    for name in ("doctor", "fetch"):
        stand_in(monkeypatch, name, 0, calls)

    def finish(folder: Path) -> int:
        calls.append(["finish", json.loads((folder / "record.json").read_text())["status"]])
        return EXIT_CLAIM_FAILED

    monkeypatch.setattr("kit.cli.reproduce.finish", finish)
    assert kit("reproduce", "toy") == EXIT_CLAIM_FAILED
    assert calls == [
        ["doctor", "toy", "--profile", "mini"],
        ["fetch", "toy", "--profile", "mini"],
        ["finish", "finished"],
    ]


@pytest.mark.parametrize("broken", ["doctor", "fetch"])
def test_reproduce_stops_at_what_cannot_be_done(
    repository: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    calls: list[list[str]] = []
    for name in ("doctor", "fetch", "verify", "report"):
        stand_in(monkeypatch, name, EXIT_INVALID if name == broken else 0, calls)
    assert kit("reproduce", "toy") == EXIT_INVALID
    assert calls[-1][0] == broken
    assert not Path("runs").exists()
