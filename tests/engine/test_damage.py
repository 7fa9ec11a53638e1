"""One damaged byte in any file of a store or a run: done again, or refused by the file's name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.engine.events import read_events
from kit.engine.locks import holder
from kit.engine.store import Store
from kit.errors import EXIT_INVALID, EXIT_OK, KitError
from kit.results.run import Run
from tests.engine.conftest import plan_of
from tests.engine.test_cli import kit, repository
from tests.engine.test_session import states

__all__ = ["repository"]

RunToy = Callable[..., Path]


def in_a_string(content: bytes) -> bytes:
    """A byte that no UTF-8 has, in the middle of the first string that is long enough."""
    at = content.index(b'"', content.index(b": ") if b": " in content else 0) + 1
    return content[:at] + b"\xff" + content[at + 1 :]


def nested(content: bytes) -> bytes:
    """A field that nobody knows, nested deeper than any reader goes."""
    return content.replace(b"{", b'{"deep": ' + b"[" * 100_000 + b"]" * 100_000 + b", ", 1)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "0xff in a string": in_a_string,
    "deep nesting": nested,
    "cut off": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "a list": lambda content: b"[]",
    "a number for a text": lambda content: content.replace(b'"', b"7 ", 1),
    "a lone surrogate": lambda content: re.sub(rb'": ?"', rb"\g<0>\\ud800", content, count=1),
    "zeros": lambda content: bytes(len(content)),
}
damaged = pytest.mark.parametrize("how", list(DAMAGE))


def damage(path: Path, how: str) -> None:
    path.chmod(0o644)
    path.write_bytes(DAMAGE[how](path.read_bytes()))


@damaged
def test_a_damaged_step_json_is_one_step_done_again(
    run_toy: RunToy, tmp_path: Path, how: str
) -> None:
    first, plan = run_toy(), plan_of()
    damage(Store(tmp_path / "home").path(plan.by_id["mix[seed=1]"].key) / "step.json", how)
    second = run_toy()
    redone = {id for id, state in states(second).items() if state == "run"}
    assert redone == {"mix[seed=1]"}
    assert any(item["event"] == "step-damaged" for item in read_events(second / "events.jsonl"))
    assert (first / "results.json").read_bytes() == (second / "results.json").read_bytes()


@damaged
def test_damaged_labels_of_a_stored_step_are_one_step_done_again(
    run_toy: RunToy, tmp_path: Path, how: str
) -> None:
    """The table's, which are copied into the run: what is copied is whole again."""
    first, plan = run_toy(), plan_of()
    stored = Store(tmp_path / "home").path(plan.by_id["table"].key) / "labels.jsonl"
    damage(stored, how)
    second = run_toy()
    redone = {id for id, state in states(second).items() if state == "run"}
    assert redone == {"table"}
    assert stored.read_bytes() == (first / "labels.jsonl").read_bytes()
    assert (second / "labels.jsonl").read_bytes() == (first / "labels.jsonl").read_bytes()


@damaged
@pytest.mark.parametrize("command", ["run", "plan", "store"])
def test_no_command_is_wedged_by_a_damaged_store(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, how: str
) -> None:
    assert kit("run", "toy") == EXIT_OK
    for entry in sorted((tmp_path / "home").rglob("step.json")):
        damage(entry, how)
    assert kit(*([command] if command == "store" else [command, "toy"])) == EXIT_OK
    assert "fault of the kit" not in capsys.readouterr().err


READERS: dict[str, Callable[[Path], object]] = {
    "plan.json": lambda run: Run(run).plan,
    "record.json": lambda run: Run(run).record,
    "results.json": lambda run: Run(run).results,
    "labels.jsonl": lambda run: Run(run).labels.get("labels.jsonl#0"),
}


@damaged
@pytest.mark.parametrize("name", list(READERS))
def test_a_damaged_file_of_a_run_is_refused_by_its_name(
    run_toy: RunToy, name: str, how: str
) -> None:
    folder = run_toy()
    READERS[name](folder)  # as long as nothing is wrong with it
    damage(folder / name, how)
    with pytest.raises(KitError) as caught:
        READERS[name](folder)
    assert caught.value.exit_code == EXIT_INVALID
    assert name in caught.value.where


@damaged
def test_a_damaged_plan_file_is_refused_by_its_name(
    repository: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    kit("plan", "toy", "--json")
    Path("p.json").write_text(capsys.readouterr().out)
    damage(Path("p.json"), how)
    for command in (["step", "p.json", "table"], ["collect", "p.json"]):
        assert kit(*command) == EXIT_INVALID
        said = capsys.readouterr().err
        assert "p.json" in said
        assert "fault of the kit" not in said


@damaged
def test_a_damaged_event_is_left_out_and_a_damaged_lock_names_nobody(
    run_toy: RunToy, tmp_path: Path, how: str
) -> None:
    log = run_toy() / "events.jsonl"
    first, *rest = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(DAMAGE[how](first).rstrip(b"\n") + b"\n" + b"".join(rest))
    assert len(list(read_events(log))) >= len(rest)
    lock = tmp_path / "lock"
    lock.write_bytes(DAMAGE[how](b'{"pid": 7, "host": "here", "since": "now"}'))
    assert "process" in holder(lock)
